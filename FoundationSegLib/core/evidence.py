"""Evidence: where in an image something spoke for a label. Coarse, on a grid in each slice, and placed in voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .classify_request import EvidenceMethod
from .errors import InputError
from .framing import Frame
from .geometry import Axis, Box, Geometry, array_axis

LIMITS = (
    "Evidence shows what moved this model's score, not where a disease is: similarity of parts was never trained for, "
    "and occlusion tells of one part at a time."
)


@dataclass(frozen=True, slots=True, eq=False)
class EvidenceMap:
    """What speaks for a label on some slices.

    Attributes:
        label: its name.
        method: what was measured: ``"similarity"`` is a difference of cosines between a part of the picture and texts,
            ``"occlusion"`` what the label's lead loses, in logits, where a part is covered.
        axis: the slices lie across it.
        slices: their numbers, rising.
        frame: what the model saw of each, in voxels.
        values: (slices, rows, columns) float32, cells of equal size that fill the frame, in the order of the stored
            slice's axes.

    Raises:
        InputError: numbers of slices and values do not agree, or a value is not finite.
    """

    label: str
    method: EvidenceMethod
    axis: Axis
    slices: tuple[int, ...]
    frame: Frame
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or len(self.values) != len(self.slices) or not self.values.size:
            raise InputError("evidence needs one grid of values for each slice")
        if not np.isfinite(self.values).all():
            raise InputError("the evidence holds values that are not finite")

    def box(self, geometry: Geometry) -> Box:
        """The voxels from the first to the last slice, inside the frame and the image."""
        place = array_axis(self.axis)
        lines = [(max(0, a), b) for a, b in (self.frame.rows, self.frame.columns)]
        lines.insert(place, (min(self.slices), max(self.slices) + 1))
        stop = tuple(min(b, n) for (_, b), n in zip(lines, geometry.shape_kji, strict=True))
        (k0, j0, i0), (k1, j1, i1) = tuple(a for a, _ in lines), stop
        return Box((k0, j0, i0), (k1, j1, i1))

    def paint(self, geometry: Geometry) -> tuple[Box, NDArray[np.float32]]:
        """The evidence in voxels: a box of the image, and in it (K, J, I) values, interpolated within slices.

        Slices of the box without evidence hold the lowest value there is.
        """
        box, place = self.box(geometry), array_axis(self.axis)
        painted = np.full(box.shape_kji, self.values.min(), np.float32)
        slices = np.moveaxis(painted, place, 0)
        starts = [n for position, n in enumerate(box.start_kji) if position != place]
        rows, columns = (
            _weights(line, cells, start, count)
            for line, cells, start, count in zip(
                (self.frame.rows, self.frame.columns), self.values.shape[1:], starts, slices.shape[1:], strict=True
            )
        )
        for index, grid in zip(self.slices, self.values, strict=True):
            slices[index - box.start_kji[place]] = rows @ grid @ columns.T
        return box, painted

    def threshold(self, share: float = 0.5) -> float:
        """The value at a share of the way from the middle of all values (their median) to the highest."""
        if not 0 <= share <= 1:
            raise InputError(f"the threshold of evidence is a share from 0 to 1, not {share}")
        middle, highest = float(np.median(self.values)), float(self.values.max())
        return middle + share * (highest - middle)

    def mask(self, geometry: Geometry, share: float = 0.5) -> tuple[Box, NDArray[np.bool_]]:
        """Where the evidence is above :meth:`threshold`: a box of the image, and in it (K, J, I); empty if flat."""
        box, painted = self.paint(geometry)
        if self.values.min() == self.values.max():
            return box, np.zeros(box.shape_kji, np.bool_)
        return box, painted >= self.threshold(share)


def _weights(line: tuple[int, int], cells: int, start: int, count: int) -> NDArray[np.float32]:
    """What each cell counts in each voxel, (count, cells): linear between the middles of cells, flat outside them."""
    size = (line[1] - line[0]) / cells
    at = np.clip((np.arange(start, start + count) + 0.5 - line[0]) / size - 0.5, 0, cells - 1)
    lower = np.minimum(at.astype(int), max(0, cells - 2))
    weights = np.zeros((count, cells), np.float32)
    weights[np.arange(count), lower] = 1 - (at - lower)
    if cells > 1:
        weights[np.arange(count), lower + 1] = at - lower
    return weights
