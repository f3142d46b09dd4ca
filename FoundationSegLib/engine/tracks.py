"""From the boxes of a segment to tracks: which slice starts, how far it is carried on, and what happens at the end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..core.geometry import Axis, Shape, array_axis
from ..core.placement import PlacedBox
from ..core.requests import BoxRule
from ..models.base import BoxXyxy, SlicePrompt


@dataclass(frozen=True, slots=True)
class Track:
    """One prompt carried from slice to slice.

    Attributes:
        axis: the volume axis across which the slices lie.
        key: the slice that the prompt was given on.
        prompt: the prompt, in the pixels of the slice.
        span: the slices that are wanted in any case: where the mask was lost, the prompt itself is asked again.
        reach: the slices that may follow beyond the span, as long as the object goes on.
        limit: what the boxes of later slices are cut to, where the prompt says where the object is; a mask may still
            go beyond its box.
    """

    axis: Axis
    key: int
    prompt: SlicePrompt
    span: range
    reach: range
    limit: BoxXyxy | None = None


def slice_prompt(placed: PlacedBox) -> SlicePrompt:
    """A box in the pixels of its slices: x along the later array axis, y along the earlier; corners inside."""
    rows, columns = (axis for axis in range(3) if axis != array_axis(placed.axis))
    start, stop = placed.box.start_kji, placed.box.stop_kji
    return SlicePrompt((start[columns], start[rows], stop[columns] - 1, stop[rows] - 1))


def plan_tracks(
    boxes: Sequence[PlacedBox], shape_kji: Shape, propagate: bool, rule: BoxRule = "confined"
) -> list[Track]:
    """The tracks of one segment's boxes.

    A 3-D box starts at its middle slice and covers its slices; by the rule ``"confined"`` it is also the limit on each
    of them. 2-D boxes along one axis share the slices between them: each slice follows the nearest box, the earlier one
    at a tie. With ``propagate`` the outermost of them go on towards the ends of the volume.
    """
    tracks = [_volume_track(placed, rule) for placed in boxes if not placed.is_2d]
    for axis in ("i", "j", "k"):
        flat = [placed for placed in boxes if placed.is_2d and placed.axis == axis]
        length = shape_kji[array_axis(axis)]
        tracks += _flat_tracks(flat, range(length) if propagate else range(0))
    return tracks


def _volume_track(placed: PlacedBox, rule: BoxRule) -> Track:
    slices, prompt = placed.slices, slice_prompt(placed)
    # int((z_max - z_min) / 2 + z_min) of the official script, with z_max inside the box
    middle = slices.start + (len(slices) - 1) // 2
    return Track(placed.axis, middle, prompt, slices, slices, prompt.box if rule == "confined" else None)


def _flat_tracks(boxes: Iterable[PlacedBox], reach: range) -> list[Track]:
    ordered = sorted(boxes, key=lambda placed: placed.slices.start)
    keys = sorted({placed.slices.start for placed in ordered})
    tracks = []
    for placed in ordered:
        span = _territory(placed.slices.start, keys)
        start = reach.start if reach and span.start == keys[0] else span.start
        stop = reach.stop if reach and span.stop == keys[-1] + 1 else span.stop
        tracks.append(Track(placed.axis, placed.slices.start, slice_prompt(placed), span, range(start, stop)))
    return tracks


def _territory(key: int, keys: Sequence[int]) -> range:
    """The slices between the first and the last key that are nearer to this key than to any other."""
    place = keys.index(key)
    start = key if place == 0 else (keys[place - 1] + key) // 2 + 1
    stop = key + 1 if place == len(keys) - 1 else (key + keys[place + 1]) // 2 + 1
    return range(start, stop)


def confined(prompt: SlicePrompt, limit: BoxXyxy | None) -> SlicePrompt | None:
    """A prompt cut to the limit; None if nothing of it lies inside."""
    if limit is None:
        return prompt
    low = (max(a, b) for a, b in zip(prompt.box[:2], limit[:2], strict=True))
    high = (min(a, b) for a, b in zip(prompt.box[2:], limit[2:], strict=True))
    x0, y0, x1, y1 = (*low, *high)
    return SlicePrompt((x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else None
