"""Objects like an example: prototypes of the features under it and around it, and boxes where slices are like them.

A slice is encoded for prompts anyway. Each cell of its embedding is compared to a few prototypes of the example and to
more of what surrounds it (Wang et al., PANet, arXiv:1908.06391, has one of each). Cells that are nearer to the example
join to objects through the slices; the box around each is a prompt for the model, whose answer is the proposal. A
model with a memory also follows the example into other images, as if their slices came next.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..errors import InputError
from ..imaging.geometry import Box, array_axis
from ..imaging.masks import PackedMask, touched_slices
from ..models.protocols import SliceMask, SlicePrompt
from ..progress import Progress
from ..prompts.kinds import BoxPrompt
from ..prompts.placement import box_prompt
from ..requests.adaptation import Proposal, SimilarRequest
from ..requests.segmentation import SegmentPrediction
from .slice_inference import LoadedModel, SliceInference
from .slices import spread

_OWN, _AROUND = 3, 16  # prototypes of the example and of its surroundings
_LEARNED_SLICES = 16  # of the example at most, evenly spread
_INSIDE, _OUTSIDE = 0.5, 0.05  # of a cell: covered by the example, and free of it
_ALIKE = 0.3  # quantile of the example's own cells, by their nearness to its prototypes
_ROUNDS = 15  # of k-means
_SIZES = 8.0  # proposals are at most so many times smaller or larger than the example
_SAME = 0.5  # overlap, of the smaller of two, from which they are the same object

Floats = NDArray[np.float32]
Predict = Callable[[str, Sequence[BoxPrompt]], Sequence[SegmentPrediction]]


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Features of unit length, (prototypes, channels), of the example and of what is around it."""

    own: Floats
    around: Floats

    def likeness(self, grid: Floats) -> Floats:
        """Compare each cell of (rows, columns, channels): its nearness to the example less that to its surroundings."""
        return _nearness(grid, self.own) - _nearness(grid, self.around)


def prototypes_of(slices: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> Prototypes:
    """Find the prototypes of an object from slices: their features, and its mask on each, (rows, columns)."""
    own, around = [], []
    for grid, mask in slices:
        covered = _coverage(mask, grid.shape[:2])
        own.append(grid[covered >= min(_INSIDE, 0.99 * float(covered.max()))])
        around.append(grid[covered <= _OUTSIDE])
    inside, outside = np.concatenate(own), np.concatenate(around)
    centres = _centres(inside, _OWN)
    # More of its kind may be on the same slices: what is as near as the example's own cells is not what surrounds it.
    outside = outside[_nearness(outside, centres) < np.quantile(_nearness(inside, centres), _ALIKE)]
    if not len(outside):
        raise InputError("the segment fills its slices: there is nothing around it to tell it from")
    return Prototypes(centres, _centres(outside, _AROUND))


def _nearness(features: Floats, centres: Floats) -> Floats:
    """The cosine of each feature, (..., channels), to the nearest prototype."""
    return (features @ centres.T).max(axis=-1)


def _coverage(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> Floats:
    """The part of each cell of a grid that a mask covers."""
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    return functional.interpolate(pixels, shape, mode="area")[0, 0].numpy()


def _centres(features: Floats, count: int) -> Floats:
    """Means of unit length of groups of features that point the same way (spherical k-means); always the same."""
    if len(features) <= count:
        return features
    centres = features[np.random.default_rng(0).choice(len(features), count, replace=False)]
    for _ in range(_ROUNDS):
        nearest = (features @ centres.T).argmax(axis=1)
        groups = (features[nearest == n] for n in range(count))
        means = [group.mean(axis=0) if len(group) else centres[n] for n, group in enumerate(groups)]
        centres = np.stack(means) / np.linalg.norm(means, axis=1, keepdims=True)
    return centres.astype(np.float32)


@dataclass(slots=True)
class SimilarSearch:
    """One request under way.

    Attributes:
        request: the request.
        loaded: the model.
        views: the images by key, as the model sees them.
        predict: the model's answers to boxes in an image, by its key.
        progress: told of every slice, and asked whether to go on.
        notes: what was left out.
    """

    request: SimilarRequest
    loaded: LoadedModel[Any]
    views: Mapping[str, SliceInference]
    predict: Predict
    progress: Progress
    notes: list[str] = field(default_factory=list)
    _example: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    def search(self) -> list[Proposal]:
        """Search all targets.

        Raises:
            InputError: the example is empty, reaches out of its image, or fills it.
            Cancelled: the user stopped it.
        """
        prototypes, size = self._learn()
        proposals = []
        for key in self.request.targets:
            proposals += self._in_image(key, prototypes, size)
        return sorted(proposals, key=lambda proposal: -proposal.likeness)

    def _learn(self) -> tuple[Prototypes, float]:
        """The example's prototypes, and its volume in mm³."""
        request, view = self.request, self.views[self.request.example_key]
        mask, n, geometry = request.mask, array_axis(request.axis), view.volume.geometry
        if mask.box.is_empty or not geometry.box.contains(mask.box):
            raise InputError("the segment is empty, or reaches out of its image: choose one that has voxels in it")
        planes = np.moveaxis(mask.expand(geometry.shape_kji), n, 0)
        chosen = spread(touched_slices(mask, request.axis), _LEARNED_SLICES)
        orientation = view.orientation(request.axis)
        self._example = {index: orientation.turn(planes[index]) for index in chosen}
        slices = [(self._grid(view, index), plane) for index, plane in self._example.items()]
        return prototypes_of(slices), mask.voxels * geometry.voxel_volume_mm3

    def _grid(self, view: SliceInference, index: int) -> Floats:
        """The features of a slice, of unit length."""
        embedding: Any = view.embed(self.request.axis, index)
        grid = embedding.grid.float().cpu().numpy()
        return grid / np.linalg.norm(grid, axis=2, keepdims=True).clip(1e-12)

    def _in_image(self, key: str, prototypes: Prototypes, size_mm3: float) -> Iterator[Proposal]:
        view = self.views[key]
        geometry, axis = view.volume.geometry, self.request.axis
        n, orientation = array_axis(axis), view.orientation(axis)
        count, planes = geometry.shape_kji[n], []
        for index in range(count):
            self.progress.step("search", index, count)
            planes.append(orientation.turn_back(prototypes.likeness(self._grid(view, index))))
        likeness = np.moveaxis(np.stack(planes), 0, n)
        voxels = size_mm3 / geometry.voxel_volume_mm3
        boxes = self._boxes(likeness, likeness > 0, voxels, geometry.shape_kji)
        if self.loaded.has_memory and key != self.request.example_key:
            boxes += self._boxes(likeness, self._followed(view, likeness.shape), voxels, geometry.shape_kji)
        if not boxes:
            return
        prompts = [box_prompt(box, geometry) for box in boxes]
        taken = [self.request.mask] if key == self.request.example_key else []
        for box, answer in zip(boxes, self.predict(key, prompts), strict=True):
            if answer.mask.box.is_empty or any(_overlap(answer.mask, other) >= _SAME for other in taken):
                continue
            taken.append(answer.mask)
            yield Proposal(key, box, answer.mask, _mean_within(likeness, answer.mask, geometry.shape_kji), answer.score)

    def _followed(self, view: SliceInference, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """The cells where a memory of the example's slices sees it, as if the image's slices came after them."""
        source, axis = self.views[self.request.example_key], self.request.axis
        n, orientation = array_axis(axis), view.orientation(axis)
        first, cells = len(self._example), [length for axis_n, length in enumerate(shape) if axis_n != n]
        memory, planes = self.loaded.model.remember(first + shape[n]), []
        for number, (index, mask) in enumerate(self._example.items()):
            memory.prompt(number, source.embed(axis, index), SlicePrompt(mask=SliceMask.pack(mask)))
        for index in range(shape[n]):
            self.progress.step("search", index, shape[n])
            answer = memory.follow(first + index, view.embed(axis, index), True)
            is_there = np.zeros_like(answer.mask) if answer.absent else answer.mask
            planes.append(_coverage(orientation.turn_back(is_there), tuple(cells)) >= _INSIDE)
        return np.moveaxis(np.stack(planes), 0, n)

    def _boxes(
        self, likeness: Floats, chosen: NDArray[np.bool_], voxels: float, shape_kji: tuple[int, int, int]
    ) -> list[Box]:
        """Boxes around connected chosen cells that are together about as large as the example; the most alike first."""
        from scipy import ndimage

        parts, _ = ndimage.label(chosen, np.ones((3, 3, 3)))
        scale = [length / cells for length, cells in zip(shape_kji, likeness.shape, strict=True)]
        expected = voxels / math.prod(scale)
        boxes = []
        for number, region in enumerate(ndimage.find_objects(parts), 1):
            cells = parts[region] == number
            if expected / _SIZES <= cells.sum() <= expected * _SIZES:
                start = [math.floor(part.start * by) for part, by in zip(region, scale, strict=True)]
                stop = [math.ceil(part.stop * by) for part, by in zip(region, scale, strict=True)]
                boxes.append((float(likeness[region][cells].sum()), Box(tuple(start), tuple(stop))))
        boxes.sort(key=lambda pair: -pair[0])
        if len(boxes) > self.request.most:
            self.notes.append(f"left out: {len(boxes) - self.request.most} places that are less like the segment")
        return [box for _, box in boxes[: self.request.most]]


def _overlap(mask: PackedMask, other: PackedMask) -> float:
    """The voxels that two masks share, of the smaller one's."""
    box = mask.box.intersection(other.box)
    if box.is_empty:
        return 0.0
    parts = (each.unpack()[box.relative_to(each.box).slices] for each in (mask, other))
    return int(np.logical_and(*parts).sum()) / min(mask.voxels, other.voxels)


def _mean_within(likeness: Floats, mask: PackedMask, shape_kji: tuple[int, int, int]) -> float:
    """The mean likeness of the cells that a mask's voxels are in."""
    index_kji = np.argwhere(mask.unpack()) + mask.box.start_kji
    cells = index_kji * likeness.shape // np.array(shape_kji)
    return float(likeness[tuple(cells.T)].mean())
