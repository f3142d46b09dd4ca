"""Label maps are told from images by their values; segments are read by name, labels by number."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import InputError
from FoundationSegLib.io.segmentations import (
    looks_like_label_map,
    open_segments,
    read_label_map,
    read_mask_prompt,
    segment_names,
)

Finder = Callable[[str], Path]


def ball(shape, centre, radius):
    grid = np.indices(shape)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture
def organs():
    labels = np.zeros((20, 40, 40), np.uint8)
    for label, centre, radius in ((1, (10, 14, 14), 9), (2, (10, 18, 22), 8), (60, (12, 30, 30), 5)):
        labels[ball(labels.shape, centre, radius)] = label
    return labels


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_labels_of_any_type(organs, kind):
    assert looks_like_label_map(organs.astype(kind))


def test_a_voxel_many_instances_and_a_mask_that_jpeg_smeared_are_labels(organs):
    rng = np.random.default_rng(3)
    speck, cells = np.zeros((5, 6, 7), np.uint8), np.zeros((1, 300, 300), np.uint16)
    speck[2, 3, 4] = 255
    for label in range(1, 400):
        cells[ball(cells.shape, (0, *rng.integers(0, 300, 2)), 6)] = label
    smeared = np.where(organs > 0, 255 - rng.integers(0, 9, organs.shape), rng.integers(0, 9, organs.shape))
    assert all(map(looks_like_label_map, (speck, cells, smeared.astype(np.uint8))))


def test_images_are_no_label_maps(organs):
    rng = np.random.default_rng(3)
    noisy = (organs * 50.0 + rng.normal(0, 3, organs.shape)).clip(0)
    dark = np.where(organs == 60, noisy, 0)
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8), organs.shape)
    hounsfield = organs.astype(np.int16) - 1000
    small = rng.integers(0, 255, (1, 30, 40)).astype(np.uint8)
    enlarged = small.repeat(4, axis=1).repeat(3, axis=2)
    images = (
        noisy,
        noisy.astype(np.uint8),
        dark.astype(np.uint8),
        ramp,
        hounsfield,
        enlarged,
        organs + 0.5,
        organs + 7,
    )
    for image in (*images, organs + 7, organs * 0, np.full((3, 4, 5), np.nan)):
        assert not looks_like_label_map(image)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("dcmqi/heart_seg.nrrd", {0, 3}),
        ("pyradiomics/brain1_label.nrrd", {0, 1}),
        ("lung-segmentation-2d/cxr1-lungmask.png", {0, 255}),
        ("BiomedParse/masks/06_CT_abdomen_liver.png", {0, 255}),
    ],
)
def test_reads_shared_labels(shared_data, name, labels):
    array, geometry = read_label_map(shared_data(name))
    assert array.shape == geometry.shape_kji
    assert array.dtype.kind in "iu"
    assert set(np.unique(array).tolist()) == labels


@pytest.mark.parametrize(("factor", "kind"), [(1.0, "i4"), (2.0**33, "i8")])
def test_whole_numbers_stored_as_real(tmp_path, organs, factor, kind):
    sitk.WriteImage(sitk.GetImageFromArray(organs * factor), str(tmp_path / "a.nrrd"))
    array, _ = read_label_map(tmp_path / "a.nrrd")
    assert array.dtype == kind
    assert np.array_equal(array, organs * factor)


def test_real_numbers_are_refused(tmp_path, organs):
    sitk.WriteImage(sitk.GetImageFromArray(organs / 7), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="not whole numbers"):
        read_label_map(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("SegNetCMR/SC-HF-I-10_4D_lv.nii.gz", "2 frames"),
        ("scikit-image/ihc.png", "3 values for each voxel"),
    ],
)
def test_what_is_no_label_map(shared_data, name, problem):
    with pytest.raises(InputError, match=problem):
        read_label_map(shared_data(name))


Writer = Callable[..., Path]
LIVER = ("Segment0_ID:=S_1", "Segment0_Name:=Liver", "Segment0_LabelValue:=1", "Segment0_Layer:=0")
VESSEL = ("Segment1_ID:=S_2", "Segment1_Name:=Hepatic vessel", "Segment1_LabelValue:=5", "Segment1_Layer:=0")
TUMOUR = ("Segment2_ID:=S_3", "Segment2_Name:=Tumour", "Segment2_LabelValue:=1", "Segment2_Layer:=1")


@pytest.fixture
def labels():
    array = np.zeros((4, 6, 5), np.int16)
    array[1:3, 1:4, 1:3] = 1
    array[2, 4:, 2:] = 5
    return array


@pytest.fixture
def shared_labels(tmp_path, labels, write_nrrd):
    kinds = "domain domain domain"
    return write_nrrd(tmp_path / "shared.seg.nrrd", labels, "(-1,0,0) (0,-1,0) (0,0,2)", kinds, *LIVER, *VESSEL)


@pytest.fixture
def layers(tmp_path, labels, write_nrrd):
    def write(*fields):
        values = np.stack((labels, labels.T.reshape(labels.shape) == 1), axis=-1)
        directions = "none (-1,0,0) (0,-1,0) (0,0,2)"
        return write_nrrd(tmp_path / "layers.seg.nrrd", values, directions, "list domain domain domain", *fields)

    return write


def test_shared_labels(shared_labels, labels):
    for name, value in (("Liver", 1), ("Hepatic vessel", 5)):
        mask, geometry = read_mask_prompt(shared_labels, name)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, labels == value)
        assert np.allclose(geometry.ijk_to_ras, [[1, 0, 0, -1], [0, 1, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]])


def test_overlapping_layers_are_read_once(layers, labels):
    path = layers(*LIVER, *VESSEL, *TUMOUR)
    file = open_segments(path)
    path.unlink()
    masks = dict(zip(file.names(), (labels == 1, labels == 5, labels.T.reshape(labels.shape) == 1), strict=True))
    assert list(masks) == ["Liver", "Hepatic vessel", "Tumour"]
    assert all(np.array_equal(file.mask(name), mask) for name, mask in masks.items())


def test_files_of_old_slicers_have_a_layer_for_each_segment(layers, labels):
    path = layers("Segment0_ID:=S_1", "Segment0_Name:=Liver", "Segment1_ID:=S_2", "Segment1_Name:=Tumour")
    assert np.array_equal(read_mask_prompt(path, "Liver")[0], labels == 1)
    assert np.array_equal(read_mask_prompt(path, "Tumour")[0], labels.T.reshape(labels.shape) == 1)


def test_missing_segment_names_those_there_are(shared_labels):
    with pytest.raises(InputError, match=r"shared\.seg\.nrrd has no segment 'Spleen'; it has: Liver, Hepatic vessel"):
        read_mask_prompt(shared_labels, "Spleen")


def test_names_that_are_no_utf8(shared_labels):
    shared_labels.write_bytes(
        shared_labels.read_bytes().replace(b"Liver", b"L\xe9ver").replace(b"t1_Lay", b"t1_L\xe9y")
    )
    with pytest.raises(InputError) as caught:
        read_mask_prompt(shared_labels, "Spleen")
    assert "Hepatic vessel" in str(caught.value).encode().decode()


TWINS = (*LIVER, *(field.replace("Tumour", "Liver") for field in TUMOUR))
FRACTIONS = (*LIVER, "Segmentation_MasterRepresentation:=Fractional labelmap")


@pytest.mark.parametrize(
    ("fields", "name", "problem"),
    [
        (TWINS, "Liver", "2 segments called 'Liver'"),
        ([field.replace("Layer:=1", "Layer:=7") for field in TUMOUR], "Tumour", "layer that is missing"),
        (FRACTIONS, "Liver", "fractional"),
    ],
)
def test_segments_that_cannot_be_read(layers, fields, name, problem):
    with pytest.raises(InputError, match=problem):
        read_mask_prompt(layers(*fields), name)


def test_layers_are_no_label_map(layers):
    with pytest.raises(InputError, match="overlapping segments in 2 layers"):
        read_label_map(layers(*LIVER, *TUMOUR))


def write_labels(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def test_label_map_by_number(tmp_path, labels):
    path = write_labels(tmp_path / "a.nii.gz", labels)
    assert np.array_equal(read_mask_prompt(path, "5")[0], labels == 5)
    for name in ("2", "0", "Liver"):
        with pytest.raises(InputError, match=f"no label '{name}'; it has: 1, 5"):
            read_mask_prompt(path, name)


def test_only_label_under_any_name(tmp_path, labels):
    path = write_labels(tmp_path / "a.nii.gz", (labels == 5) * np.float32(3))
    assert np.array_equal(read_mask_prompt(path, "Vessel")[0], labels == 5)
    with pytest.raises(InputError, match="no label '1'; it has: 3"):
        read_mask_prompt(path, "1")


def test_empty_label_map(tmp_path):
    path = write_labels(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="it has: none"):
        read_mask_prompt(path, "Liver")


def test_an_image_has_no_segments(tmp_path):
    noise = np.random.default_rng(0).integers(0, 200, (4, 30, 30)).astype(np.int16)
    for name, array in (("noise.nrrd", noise), ("ct.nrrd", noise - 1000)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
        with pytest.raises(InputError, match=f"{name} is an image, not a label map"):
            segment_names(tmp_path / name)
        with pytest.raises(InputError, match="no label '5000'") as caught:
            read_mask_prompt(tmp_path / name, "5000")
        assert len(str(caught.value)) < 300


def test_a_label_map_has_its_numbers(tmp_path):
    centres = np.random.default_rng(0).random((50, 2)) * 80
    grid = np.stack(np.meshgrid(np.arange(80), np.arange(80), indexing="ij"), axis=-1)
    nearest = np.linalg.norm(grid[:, :, None] - centres, axis=-1).argmin(axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(nearest[None].astype(np.int16)), str(tmp_path / "many.nrrd"))
    assert segment_names(tmp_path / "many.nrrd") == tuple(map(str, range(1, 50)))
