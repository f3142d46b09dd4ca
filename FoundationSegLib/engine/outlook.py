"""What may be asked next: the slices around the last prompt, which are encoded while nothing else is to be done."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ..imaging.geometry import Axis, array_axis
from ..imaging.volume import Volume
from ..progress import Progress
from .slice_inference import SliceInference

# How far from the last prompt slices are encoded: where a user scrolls next.
SLICES_AHEAD = 5


@dataclass(slots=True)
class Outlook:
    """The slices that are left, the nearest first."""

    inference: SliceInference
    slices: deque[tuple[Axis, int]]

    def encode_next(self, progress: Progress) -> bool:
        """Encode the nearest slice that never was; False where there is none left.

        Raises:
            Cancelled: something that was asked for has come.
        """
        while self.slices:
            is_new = self.inference.encode_ahead(*self.slices[0], progress)
            self.slices.popleft()
            if is_new:
                return True
        return False


def outlook_from(inference: SliceInference, axis: Axis, slices: range) -> Outlook:
    """The slices next to some slices of an axis."""
    return Outlook(inference, deque(_around(axis, slices, inference.volume)))


def _around(axis: Axis, slices: range, volume: Volume) -> Iterator[tuple[Axis, int]]:
    length = volume.geometry.shape_kji[array_axis(axis)]
    for distance in range(1, SLICES_AHEAD + 1):
        for index in (slices.stop - 1 + distance, slices.start - distance):
            if 0 <= index < length:
                yield axis, index
