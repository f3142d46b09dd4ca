"""Held-out tests: which slices are not learned from, and the interval of a gain over patients or blocks of slices.

Neighbouring slices look alike, so that a slice beside a training slice tests memory alone. Whole patients are held out
where there are three or more; otherwise blocks of slices, three slices away from all that is learned from. What is
counted as one in an interval (a unit) is a patient or such a block, never a slice or an object.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..errors import InputError
from ..requests.adaptation import Gain

GAP = 3  # slices between blocks, and between a block and what is learned from
_FEWEST_PATIENTS = 3  # from so many on, whole patients are held out, and intervals are over them
_SUFFICIENT_PATIENTS = 5  # of which two are held out, however few slices they have
_PERIOD = 10  # slices for each held-out block of an image, gaps and training slices included
_MOST_BLOCKS = 8  # of an image
_RESAMPLES = 2000
_LEVEL = 0.95

SplitKind = Literal["patients", "blocks", "interleaved"]


@dataclass(frozen=True, slots=True)
class LabelledSlice:
    """A slice with objects on it: the number of its image, the patient, and its number across the axis."""

    case: int
    patient: str
    index: int


@dataclass(frozen=True, slots=True)
class Split:
    """Slices to learn from and slices to test on; each of the latter with its unit."""

    kind: SplitKind
    training: frozenset[LabelledSlice]
    units: Mapping[LabelledSlice, str]

    @property
    def unit_count(self) -> int:
        """The number of units."""
        return len(set(self.units.values()))


def joined_patients(images: Sequence[tuple[str, NDArray[np.generic]]]) -> tuple[str, ...]:
    """The patient of each image, (K, J, I): images that share a slice, voxel by voxel, are of the first one's patient.

    An image and a part of it are easily taken for two patients, and the test would be of what was learned.
    """
    slices: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for patient, array_kji in images:
        for plane in array_kji:
            if plane.min() < plane.max():
                digest = hashlib.sha256(np.ascontiguousarray(plane, np.float64).tobytes()).digest()
                earlier = slices.setdefault(digest, patient)
                first, second = _first(same, earlier), _first(same, patient)
                if first != second:
                    same[second] = first
    return tuple(_first(same, patient) for patient, _ in images)


def _first(same: Mapping[str, str], patient: str) -> str:
    while patient in same:
        patient = same[patient]
    return patient


def split_slices(slices: Sequence[LabelledSlice], seed: int, *, interleaved: bool = False) -> Split:
    """Split slices into training and test.

    Args:
        slices: all of them.
        seed: chooses the patients that are held out.
        interleaved: test on every third slice of each image, beside those that are learned from.

    Raises:
        InputError: there are too few for both.
    """
    patients = sorted({item.patient for item in slices})
    if interleaved:
        split = _interleaved(slices)
    elif len(patients) >= _FEWEST_PATIENTS:
        split = _by_patients(slices, patients, seed)
    else:
        split = _by_blocks(slices)
    if not split.training or split.unit_count < 2:
        raise InputError(
            f"{len(slices)} slices with segments of {len(patients)} patients are too few to learn from and to test on: "
            f"take segments over {2 * _PERIOD} slices of an image, or of {_SUFFICIENT_PATIENTS} patients"
        )
    return split


def _interleaved(slices: Sequence[LabelledSlice]) -> Split:
    held_out = {item: f"{item.case}/{item.index}" for item in slices if item.index % 3 == 1}
    return Split("interleaved", frozenset(slices).difference(held_out), held_out)


def _by_patients(slices: Sequence[LabelledSlice], patients: Sequence[str], seed: int) -> Split:
    """A third of the patients; where that is fewer than three, intervals are over blocks of their slices."""
    order = np.random.default_rng(seed).permutation(len(patients))
    held_out = {patients[n] for n in order[: max(1, round(len(patients) / 3))]}
    test = [item for item in slices if item.patient in held_out]
    training = frozenset(slices).difference(test)
    if len(held_out) >= _FEWEST_PATIENTS:
        return Split("patients", training, {item: item.patient for item in test})
    return Split("blocks", training, _units(test, lambda period: period - GAP))


def _by_blocks(slices: Sequence[LabelledSlice]) -> Split:
    """A third of what is left of each period when the gaps are taken away, in its middle."""
    units = _units(slices, lambda period: (period - 2 * GAP) / 3)
    near = {(item.case, item.index + offset) for item in units for offset in range(-GAP, GAP + 1)}
    training = frozenset(item for item in slices if (item.case, item.index) not in near)
    return Split("blocks", training, units)


def _units(slices: Sequence[LabelledSlice], length_of: Callable[[int], float]) -> dict[LabelledSlice, str]:
    """Blocks of slices in the middle of each period of an image, by a name of the block."""
    units: dict[LabelledSlice, str] = {}
    for case in sorted({item.case for item in slices}):
        indices = [item.index for item in slices if item.case == case]
        first, span = min(indices), max(indices) - min(indices) + 1
        count = max(1, min(_MOST_BLOCKS, span // _PERIOD))
        length = max(1, round(length_of(span // count)))
        for n in range(count):
            start = first + math.floor((n + 0.5) * span / count - length / 2)
            block = range(start, start + length)
            units |= {item: f"{case}/{n}" for item in slices if item.case == case and item.index in block}
    return units


def gain_over(differences: Mapping[str, Sequence[float]], seed: int) -> Gain:
    """Estimate a mean gain with its 95 % interval: each unit counts once, by the mean of its objects.

    The bootstrap over few units is too narrow, and cannot leave the range of what it saw: with three that are all above
    zero, one time in eight by chance, it would be certain. So its ends are moved out to those of Student's interval
    where that is wider. With one unit nothing is known of chance, and there is no interval.

    Args:
        differences: the gain of each object, by unit.
        seed: of the resampling.
    """
    means = np.array([np.mean(values) for values in differences.values() if len(values)])
    if len(means) < 2:
        return Gain(float(means.mean()) if len(means) else 0.0)
    draws = np.random.default_rng(seed).integers(0, len(means), (_RESAMPLES, len(means)))
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means[draws].mean(axis=1), (tail, 1 - tail)).tolist()
    reach = float(stats.t.ppf(1 - tail, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))
    mean = float(means.mean())
    return Gain(mean, min(low, mean - reach), max(high, mean + reach))
