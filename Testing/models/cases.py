"""Real images with ground truth: which labels, which intensities, and the boxes that the bars are measured with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from FoundationSegLib.imaging.geometry import bounding_box
from FoundationSegLib.imaging.intensity import resolve_intensity
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map
from FoundationSegLib.prompts.kinds import BoxPrompt, SegmentPrompts

Find = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Case:
    """One image with its label map; ``labels`` are the values to segment and their names, on ``slices`` alone."""

    image: str
    label: str
    intensity: str
    labels: Mapping[int, str]
    slices: tuple[int, int | None] = (0, None)

    def read(self, find: Find) -> tuple[Volume, np.ndarray]:
        volume = read_volume(find(self.image))
        labels, geometry = read_label_map(find(self.label))
        assert geometry.almost_equals(volume.geometry)
        kept = np.zeros_like(labels)
        first, stop = self.slices
        kept[first:stop] = labels[first:stop]
        return volume, kept


CT = Case(
    "TotalSegmentator/example_ct_sm.nii.gz",
    "TotalSegmentator/example_ct_sm_seg.nii.gz",
    "ct-soft-tissue",
    {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "liver",
        6: "stomach",
        7: "pancreas",
        52: "aorta",
    },
)
MR = Case(
    "TotalSegmentator/example_mr_sm.nii.gz",
    "TotalSegmentator/example_mr_sm_seg.nii.gz",
    "percentile",
    {n: f"MR organ {n}" for n in range(1, 7)},
)
HEART = Case(
    "SegNetCMR/SC-HF-I-10_ED_image.nii.gz", "SegNetCMR/SC-HF-I-10_ED_lv.nii.gz", "percentile", {1: "left ventricle"}
)
# The middle of the box, and a neighbour on each side that gets its prompt from there.
HEART_MIDDLE = replace(HEART, slices=(4, 7))
PELVIS = Case(
    "MedSAM2/deeplesion_000015_HU.nii.gz", "MedSAM2/deeplesion_000015_lesion.nii.gz", "ct-soft-tissue", {1: "lesion"}
)
LUNG = Case("pyradiomics/lung1_crop_image.nrrd", "pyradiomics/lung1_crop_label.nrrd", "ct-soft-tissue", {1: "nodule"})
BRAIN = Case("pyradiomics/brain1_image.nrrd", "pyradiomics/brain1_label.nrrd", "percentile", {1: "tumour"})
CASES = (CT, MR, HEART, PELVIS, LUNG, BRAIN)
END_SYSTOLE = Case(
    "SegNetCMR/SC-HF-I-10_ES_image.nii.gz", "SegNetCMR/SC-HF-I-10_ES_lv.nii.gz", "percentile", {1: "left ventricle, ES"}
)
BREAST = Case("pyradiomics/breast1_image.nrrd", "pyradiomics/breast1_label.nrrd", "percentile", {1: "breast lesion"})
ALL_CASES = (*CASES, END_SYSTOLE, BREAST)


# Slices of every modality and shape: case, label, slice; "turned" makes a landscape slice a portrait one.
SLICES = {
    "CT liver": (CT, 5, 14, False),
    "CT liver, portrait": (CT, 5, 14, True),
    "CT left kidney": (CT, 3, 12, False),
    "CT spleen, portrait": (CT, 1, 18, True),
    "MR liver": (MR, 5, 10, False),
    "MR liver, portrait": (MR, 5, 10, True),
    "heart": (HEART, 1, 4, False),
    "pelvis": (PELVIS, 1, 6, False),
    "lung nodule": (LUNG, 1, 25, False),
    "brain tumour": (BRAIN, 1, 14, False),
}


def box_of(mask_kji: np.ndarray) -> np.ndarray:
    """The box that the bars are measured with: around the label, one voxel wider in the slices, within the image.

    (6,) int: i0, j0, k0, i1, j1, k1, all inside.
    """
    tight = bounding_box(mask_kji)
    low = np.maximum(np.subtract(tight.start_kji, (0, 1, 1)), 0)
    high = np.minimum(np.add(tight.stop_kji, (-1, 0, 0)), np.subtract(mask_kji.shape, 1))
    return np.array([*low[::-1], *high[::-1]])


def values_of(labels_kji: np.ndarray) -> list[int]:
    """The values that a 3-D box can be put around: at least 100 voxels on at least 3 slices, no line or plane."""
    values = []
    for value in map(int, np.unique(labels_kji[labels_kji > 0])):
        mask = labels_kji == value
        i0, j0, k0, i1, j1, k1 = box_of(mask)
        if np.count_nonzero(mask) >= 100 and k1 - k0 >= 2 and i1 > i0 and j1 > j0:
            values.append(value)
    return values


def box_prompt(volume: Volume, box: np.ndarray, name: str = "segment") -> SegmentPrompts:
    first, second = (tuple(volume.geometry.to_ras(corner)) for corner in (box[:3], box[3:]))
    return SegmentPrompts(name, (BoxPrompt((first, second)),))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / max(1, np.count_nonzero(first) + np.count_nonzero(second))


def one_slice(find: Find, case: Case, value: int, index: int, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """A slice as the network is given it, and its label: (1, rows, columns), uint8 and bool."""
    volume, labels = case.read(find)
    image, mask = volume.array_kji[index], labels[index] == value
    assert mask.any()
    if turned:
        image, mask = image.T, mask.T
    # The intensities are those of the whole volume: the slice alone would have others.
    seen = resolve_intensity(case.intensity, volume).to_uint8(np.ascontiguousarray(image))
    return seen[None], mask[None]
