"""Label maps are told from images by their values alone, and read as whole numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.io.label_maps import looks_like_label_map, read_label_map

Finder = Callable[[str], Path]


def ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture
def organs() -> NDArray[np.uint8]:
    labels = np.zeros((20, 40, 40), np.uint8)
    for label, centre, radius in ((1, (10, 14, 14), 9), (2, (10, 18, 22), 8), (60, (12, 30, 30), 5)):
        labels[ball(labels.shape, centre, radius)] = label
    return labels


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_labels_of_any_type(organs: NDArray[np.uint8], kind: type) -> None:
    assert looks_like_label_map(organs.astype(kind))


def test_a_single_voxel_is_a_label() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[2, 3, 4] = 255
    assert looks_like_label_map(labels)


def test_many_instances(organs: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(3)
    cells = np.zeros((1, 300, 300), np.uint16)
    for label in range(1, 400):
        cells[ball(cells.shape, (0, *rng.integers(0, 300, 2)), 6)] = label
    assert looks_like_label_map(cells)


def test_mask_smeared_by_jpeg(organs: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(3)
    smeared = np.where(organs > 0, 255 - rng.integers(0, 9, organs.shape), rng.integers(0, 9, organs.shape))
    assert looks_like_label_map(smeared.astype(np.uint8))


def test_images_are_no_label_maps(organs: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(3)
    noisy = (organs * 50.0 + rng.normal(0, 3, organs.shape)).clip(0)
    dark = np.where(organs == 60, noisy, 0)
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8), organs.shape)
    hounsfield = organs.astype(np.int16) - 1000
    for image in (noisy, noisy.astype(np.uint8), dark.astype(np.uint8), ramp, hounsfield, organs + 0.5, organs + 7):
        assert not looks_like_label_map(image)


def test_enlarged_picture_is_no_label_map() -> None:
    small = np.random.default_rng(3).integers(0, 255, (1, 30, 40)).astype(np.uint8)
    assert not looks_like_label_map(small.repeat(4, axis=1).repeat(3, axis=2))


def test_nothing_to_tell_from() -> None:
    assert not looks_like_label_map(np.zeros((3, 4, 5), np.uint8))
    assert not looks_like_label_map(np.full((3, 4, 5), np.nan))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("dcmqi/heart_seg.nrrd", {0, 3}),
        ("pyradiomics/brain1_label.nrrd", {0, 1}),
        ("lung-segmentation-2d/cxr1-lungmask.png", {0, 255}),
        ("BiomedParse/masks/06_CT_abdomen_liver.png", {0, 255}),
    ],
)
def test_reads_shared_labels(shared_data: Finder, name: str, labels: set[int]) -> None:
    array, geometry = read_label_map(shared_data(name))
    assert array.shape == geometry.shape_kji
    assert array.dtype.kind in "iu"
    assert set(np.unique(array).tolist()) == labels


def test_instance_labels_keep_their_numbers(shared_data: Finder) -> None:
    array, _ = read_label_map(shared_data("stardist/mask2d.tif"))
    assert (array.shape, array.max(), len(np.unique(array))) == ((1, 512, 512), 183, 126)


def test_labels_and_image_share_their_grid(shared_data: Finder) -> None:
    image = sitk.ReadImage(str(shared_data("pyradiomics/brain1_image.nrrd")))
    _, geometry = read_label_map(shared_data("pyradiomics/brain1_label.nrrd"))
    expected = np.array(image.TransformIndexToPhysicalPoint((3, 4, 5))) * (-1, -1, 1)
    assert np.allclose(geometry.to_ras((3, 4, 5)), expected)


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "i4"), (2.0**33, "i8")])
def test_whole_numbers_stored_as_real(tmp_path: Path, organs: NDArray[np.uint8], factor: float, kind: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(organs * factor), str(tmp_path / "a.nrrd"))
    array, _ = read_label_map(tmp_path / "a.nrrd")
    assert array.dtype == kind
    assert np.array_equal(array, organs * factor)


def test_real_numbers_are_refused(tmp_path: Path, organs: NDArray[np.uint8]) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(organs / 7), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="not whole numbers"):
        read_label_map(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("SegNetCMR/SC-HF-I-10_4D_lv.nii.gz", "2 frames"),
        ("dcmqi/liver.dcm", "DICOM segmentation"),
        ("scikit-image/ihc.png", "3 values for each voxel"),
    ],
)
def test_what_is_no_label_map(shared_data: Finder, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_label_map(shared_data(name))
