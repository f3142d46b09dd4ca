"""From tracks to segments: all walks of all segments pass a slice together, so that it is encoded once."""

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import Axis, Shape, array_axis
from ..imaging.masks import EMPTY_MASK, PackedMask, merge_masks, pack_mask
from ..models.protocols import has_memory
from ..progress import Progress
from ..requests.segmentation import Propagation, SegmentPrediction
from .memory_walks import MemoryWalk, join_tracks
from .orientation import is_rising
from .slice_inference import SliceInference, slice_of
from .tracks import Track
from .walks import SliceWalk, Visit, Walk


def segment(
    inference: SliceInference, tracks: Sequence[Sequence[Track]], propagation: Propagation, progress: Progress
) -> list[SegmentPrediction]:
    """What the tracks of each segment find, in the order of the segments.

    Raises:
        Cancelled: the user asked to stop.
    """
    walks = [_walks(inference, of_segment, propagation) for of_segment in tracks]
    _pass([walk for of_segment in walks for walk in of_segment], progress)
    return [_joined(inference, of_segment) for of_segment in walks]


def _walks(inference: SliceInference, tracks: Sequence[Track], propagation: Propagation) -> list[Walk]:
    walks: list[Walk] = []
    model = inference.model
    if has_memory(model):
        followed, tracks = join_tracks(tracks)
        for one in followed:
            seen = one.turned(inference.orientation(one.axis), _slice_shape(inference, one.axis))
            rising = inference.as_stored or is_rising(inference.volume.geometry, one.axis)
            walks.append(MemoryWalk(seen, inference, rising, model.fresh_each_way, model.largest_part_only))
    for track in tracks:
        seen_track = track.turned(inference.orientation(track.axis), _slice_shape(inference, track.axis))
        walks.append(SliceWalk(seen_track, inference, propagation.least_agreement))
    return walks


def _slice_shape(inference: SliceInference, axis: Axis) -> tuple[int, int]:
    rows, columns = slice_of(inference.volume, axis, 0).shape[:2]
    return rows, columns


def _pass(walks: Sequence[Walk], progress: Progress) -> None:
    """Let the walk go on that is the furthest behind, again and again, until all have ended."""
    total = sum(walk.steps for walk in walks)
    ways = [walk.visits() for walk in walks]
    waiting: list[tuple[Visit, int]] = []
    for number, way in enumerate(ways):
        _line_up(waiting, next(way, None), number)
    told = 0
    while waiting:
        _, number = heapq.heappop(waiting)
        progress.check()
        _line_up(waiting, next(ways[number], None), number)
        done = sum(walk.done for walk in walks)
        if done > told:
            progress.step("slices", done, total)
            told = done


def _line_up(waiting: list[tuple[Visit, int]], place: Visit | None, number: int) -> None:
    if place is not None:
        heapq.heappush(waiting, (place, number))


def _joined(inference: SliceInference, walks: Sequence[Walk]) -> SegmentPrediction:
    """The segment of some walks: what any of them found, and the mean of what the model thought of it."""
    shape = inference.volume.geometry.shape_kji
    masks = []
    for walk in walks:
        turned = inference.orientation(walk.axis)
        stored = {index: turned.turn_back(answer.mask) for index, answer in walk.found.items()}
        mask = stack_slices(walk.axis, stored, shape)
        if isinstance(walk, MemoryWalk) and walk.largest_part_only:
            mask = largest_part(mask)
        masks.append(mask)
    scores = [answer.score for walk in walks for answer in walk.found.values() if answer.mask.any()]
    return SegmentPrediction(merge_masks(masks), sum(scores) / len(scores) if scores else None)


def stack_slices(axis: Axis, slices: Mapping[int, NDArray[np.bool_]], shape_kji: Shape) -> PackedMask:
    """The mask whose slices across an axis are given, by slice number; all other slices are empty."""
    if not slices:
        return EMPTY_MASK
    low, high = min(slices), max(slices)
    empty = np.zeros_like(next(iter(slices.values())))
    stack = np.stack([slices.get(index, empty) for index in range(low, high + 1)], axis=array_axis(axis))
    start = [0, 0, 0]
    start[array_axis(axis)] = low
    return pack_mask(stack, (start[0], start[1], start[2]))


def largest_part(mask: PackedMask) -> PackedMask:
    """The largest connected part of a mask; voxels that share a corner are connected (MedSAM2's own scripts do so)."""
    from scipy import ndimage

    if mask.box.is_empty:
        return mask
    parts, count = ndimage.label(mask.unpack(), np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return pack_mask(parts == sizes.argmax(), mask.box.start_kji)
