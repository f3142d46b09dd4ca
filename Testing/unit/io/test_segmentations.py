"""Segments by name from Slicer's files, by number from label maps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.io.label_maps import read_label_map
from FoundationSegLib.io.segmentations import read_mask_prompt, segment_names

Writer = Callable[..., Path]
LIVER = ("Segment0_ID:=S_1", "Segment0_Name:=Liver", "Segment0_LabelValue:=1", "Segment0_Layer:=0")
VESSEL = ("Segment1_ID:=S_2", "Segment1_Name:=Hepatic vessel", "Segment1_LabelValue:=5", "Segment1_Layer:=0")
TUMOUR = ("Segment2_ID:=S_3", "Segment2_Name:=Tumour", "Segment2_LabelValue:=1", "Segment2_Layer:=1")


@pytest.fixture
def labels() -> NDArray[np.int16]:
    array = np.zeros((4, 6, 5), np.int16)
    array[1:3, 1:4, 1:3] = 1
    array[2, 4:, 2:] = 5
    return array


@pytest.fixture
def shared_labels(tmp_path: Path, labels: NDArray[np.int16], write_nrrd: Writer) -> Path:
    kinds = "domain domain domain"
    return write_nrrd(tmp_path / "shared.seg.nrrd", labels, "(-1,0,0) (0,-1,0) (0,0,2)", kinds, *LIVER, *VESSEL)


@pytest.fixture
def layers(tmp_path: Path, labels: NDArray[np.int16], write_nrrd: Writer) -> Callable[..., Path]:
    def write(*fields: str) -> Path:
        values = np.stack((labels, labels.T.reshape(labels.shape) == 1), axis=-1)
        directions = "none (-1,0,0) (0,-1,0) (0,0,2)"
        return write_nrrd(tmp_path / "layers.seg.nrrd", values, directions, "list domain domain domain", *fields)

    return write


def test_shared_labels(shared_labels: Path, labels: NDArray[np.int16]) -> None:
    for name, value in (("Liver", 1), ("Hepatic vessel", 5)):
        mask, geometry = read_mask_prompt(shared_labels, name)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, labels == value)
        assert np.allclose(geometry.ijk_to_ras, [[1, 0, 0, -1], [0, 1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]])


def test_overlapping_layers(layers: Callable[..., Path], labels: NDArray[np.int16]) -> None:
    path = layers(*LIVER, *VESSEL, *TUMOUR)
    assert np.array_equal(read_mask_prompt(path, "Liver")[0], labels == 1)
    assert np.array_equal(read_mask_prompt(path, "Hepatic vessel")[0], labels == 5)
    assert np.array_equal(read_mask_prompt(path, "Tumour")[0], labels.T.reshape(labels.shape) == 1)


def test_files_of_old_slicers_have_a_layer_for_each_segment(
    layers: Callable[..., Path], labels: NDArray[np.int16]
) -> None:
    path = layers("Segment0_ID:=S_1", "Segment0_Name:=Liver", "Segment1_ID:=S_2", "Segment1_Name:=Tumour")
    assert np.array_equal(read_mask_prompt(path, "Liver")[0], labels == 1)
    assert np.array_equal(read_mask_prompt(path, "Tumour")[0], labels.T.reshape(labels.shape) == 1)


def test_missing_segment_names_those_there_are(shared_labels: Path) -> None:
    with pytest.raises(InputError, match=r"shared\.seg\.nrrd has no segment 'Spleen'; it has: Liver, Hepatic vessel"):
        read_mask_prompt(shared_labels, "Spleen")


def test_names_that_are_no_utf8(shared_labels: Path) -> None:
    shared_labels.write_bytes(
        shared_labels.read_bytes().replace(b"Liver", b"L\xe9ver").replace(b"t1_Lay", b"t1_L\xe9y")
    )
    with pytest.raises(InputError) as caught:
        read_mask_prompt(shared_labels, "Spleen")
    assert "Hepatic vessel" in str(caught.value).encode().decode()


def test_two_segments_of_one_name(layers: Callable[..., Path]) -> None:
    path = layers(*LIVER, *(field.replace("Tumour", "Liver") for field in TUMOUR))
    with pytest.raises(InputError, match="2 segments called 'Liver'"):
        read_mask_prompt(path, "Liver")


def test_layer_that_is_missing(layers: Callable[..., Path]) -> None:
    path = layers(*(field.replace("Layer:=1", "Layer:=7") for field in TUMOUR))
    with pytest.raises(InputError, match="layer that is missing"):
        read_mask_prompt(path, "Tumour")


def test_fractional_segments(layers: Callable[..., Path]) -> None:
    path = layers(*LIVER, "Segmentation_MasterRepresentation:=Fractional labelmap")
    with pytest.raises(InputError, match="fractional"):
        read_mask_prompt(path, "Liver")


def test_layers_are_no_label_map(layers: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="overlapping segments in 2 layers"):
        read_label_map(layers(*LIVER, *TUMOUR))


def write_labels(path: Path, array: NDArray[Any]) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def test_label_map_by_number(tmp_path: Path, labels: NDArray[np.int16]) -> None:
    path = write_labels(tmp_path / "a.nii.gz", labels)
    assert np.array_equal(read_mask_prompt(path, "5")[0], labels == 5)
    for name in ("2", "0", "Liver"):
        with pytest.raises(InputError, match=f"no label '{name}'; it has: 1, 5"):
            read_mask_prompt(path, name)


def test_only_label_under_any_name(tmp_path: Path, labels: NDArray[np.int16]) -> None:
    path = write_labels(tmp_path / "a.nii.gz", (labels == 5) * np.float32(3))
    assert np.array_equal(read_mask_prompt(path, "Vessel")[0], labels == 5)
    with pytest.raises(InputError, match="no label '1'; it has: 3"):
        read_mask_prompt(path, "1")


def test_empty_label_map(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="it has: none"):
        read_mask_prompt(path, "Liver")


def test_dicom_segmentation(shared_data: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="DICOM segmentation, which is not supported"):
        read_mask_prompt(shared_data("dcmqi/liver.dcm"), "Liver")


def test_shared_label_map(shared_data: Callable[[str], Path]) -> None:
    mask, geometry = read_mask_prompt(shared_data("dcmqi/heart_seg.nrrd"), "3")
    assert (int(mask.sum()), geometry.shape_kji) == (41449, (3, 512, 512))


def test_an_image_has_no_segments(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (4, 30, 30)).astype(np.int16)
    for name, array in (("noise.nrrd", noise), ("ct.nrrd", noise - 1000)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
        with pytest.raises(InputError, match=f"{name} is an image, not a label map"):
            segment_names(tmp_path / name)
        with pytest.raises(InputError, match="no label '5000'") as caught:
            read_mask_prompt(tmp_path / name, "5000")
        assert len(str(caught.value)) < 300


def test_a_label_map_has_its_numbers(tmp_path: Path) -> None:
    centres = np.random.default_rng(0).random((50, 2)) * 80
    grid = np.stack(np.meshgrid(np.arange(80), np.arange(80), indexing="ij"), axis=-1)
    nearest = np.linalg.norm(grid[:, :, None] - centres, axis=-1).argmin(axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(nearest[None].astype(np.int16)), str(tmp_path / "many.nrrd"))
    assert segment_names(tmp_path / "many.nrrd") == tuple(map(str, range(1, 50)))
