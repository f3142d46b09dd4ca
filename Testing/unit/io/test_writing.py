"""Label maps are written exactly, in the smallest type, or not at all."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.imaging.geometry import Geometry, geometry_from_spacing
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import check_grid, read_label_map, write_label_map, write_values

SHAPE = (4, 6, 5)
OBLIQUE = np.array(
    [[-0.8, 0.36, 1.44, 12.5], [0.6, 0.48, 1.92, -130.25], [0, 0.8, -1.8, 900.125], [0, 0, 0, 1]], np.float64
)
PERMUTED = np.array([[0, 0, -3, 7], [0.5, 0, 0, 8], [0, -0.5, 0, 9], [0, 0, 0, 1]], np.float64)
TILTED = np.array([[-1, 0, 0, 1], [0, -1, -0.7, 2], [0, 0, 2, 3], [0, 0, 0, 1]], np.float64)
FAR = np.array([[-3e-5, 0, 0, 1], [0, -3e-5, 0, 2], [0, 0, 3e-5, 1200.7], [0, 0, 0, 1]], np.float64)


def rounded(digits):
    """A grid whose cosines were rounded, as in DICOM and many NIfTI files."""
    cosines = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.round(cosines, digits) @ np.diag((0.9, 0.9, 2.5)), (10, 20, 30)
    return matrix


GRIDS = {"oblique": OBLIQUE, "permuted": PERMUTED, "left-handed": np.diag((1.0, 1.0, -2.0, 1.0))}
GRIDS |= {f"{digits} decimals": rounded(digits) for digits in (4, 5, 6)}


def labels(highest, kind=np.int64):
    array = np.random.default_rng(5).integers(0, 3, SHAPE).astype(kind)
    array[1, 2, 3] = highest
    return array


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_and_grid_come_back(tmp_path, ending, grid):
    path, geometry = tmp_path / f"a.{ending}", Geometry(GRIDS[grid], SHAPE)
    write_label_map(path, labels(9), geometry)
    array, read = read_label_map(path)
    assert np.array_equal(array, labels(9))
    assert np.allclose(read.ijk_to_ras, geometry.ijk_to_ras, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("highest", "kind"), [(255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32 - 1, "u4")]
)
@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_smallest_type_that_fits(tmp_path, highest, kind, ending):
    path = tmp_path / f"a.{ending}"
    write_label_map(path, labels(highest), geometry_from_spacing(SHAPE))
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert array.dtype == kind
    assert array.max() == highest


def test_sheared_grid_goes_to_nrrd_only(tmp_path):
    geometry = Geometry(TILTED, SHAPE)
    with pytest.raises(OutputError, match=r"a\.nii\.gz: the image's grid is sheared"):
        write_label_map(tmp_path / "a.nii.gz", labels(1), geometry)
    assert not list(tmp_path.iterdir())
    write_label_map(tmp_path / "a.nrrd", labels(1), geometry)
    array, read = read_label_map(tmp_path / "a.nrrd")
    assert np.array_equal(array, labels(1))
    assert np.allclose(read.ijk_to_ras, TILTED, atol=1e-12)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (labels(1) * 0.5, "whole numbers"),
        (labels(1)[:3], "on the grid"),
        (labels(-1), "not from -1 to"),
        (labels(2**32), "to 4294967296"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, array, problem):
    with pytest.raises(InputError, match=problem):
        write_label_map(tmp_path / "a.nrrd", array, geometry_from_spacing(SHAPE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a.seg.nrrd", "ending of a segmentation"),
        ("a.nii", "must end in one of .seg.nrrd, .nii.gz, .nrrd"),
        ("missing/a.nrrd", "cannot be written"),
    ],
)
def test_places_that_do_not_work(tmp_path, path, problem):
    with pytest.raises(OutputError, match=problem):
        write_label_map(tmp_path / path, labels(1), geometry_from_spacing(SHAPE))


def test_old_file_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    path.write_text("old")

    def fail(*_, **__):
        raise RuntimeError("ITK has no space left")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutputError, match=r"a\.nrrd cannot be written: is the folder still there"):
        write_label_map(path, labels(1), geometry_from_spacing(SHAPE))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("matrix", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz"])
def test_values_come_back_on_their_grid(tmp_path, matrix, name):
    values = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    geometry = Geometry(matrix, SHAPE)
    write_values(tmp_path / name, values, geometry)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.array_kji, values) and volume.array_kji.dtype == np.float32
    assert volume.geometry.almost_equals(geometry)


@pytest.mark.parametrize("digits", [4, 5, 6])
def test_rounded_cosines_are_written_as_they_are_to_the_last_voxel(tmp_path, digits):
    geometry = Geometry(rounded(digits), (100, 512, 512))
    check_grid(tmp_path / "a.nii.gz", geometry)
    array = np.zeros(geometry.shape_kji, np.uint8)
    array[99, 511, 511] = 1
    write_label_map(tmp_path / "a.nii.gz", array, geometry)
    read = read_label_map(tmp_path / "a.nii.gz")[1]
    last = (511, 511, 99)
    assert np.allclose(read.to_ras(last), geometry.to_ras(last), atol=1e-3)


@pytest.mark.parametrize("matrix", [TILTED, FAR, rounded(2)])
def test_a_grid_that_nifti_cannot_hold_is_found_out_beforehand(tmp_path, matrix):
    with pytest.raises(OutputError, match=r"a\.nii\.gz.*write \.seg\.nrrd or \.nrrd instead"):
        check_grid(tmp_path / "a.nii.gz", Geometry(matrix, (100, 512, 512)))
    check_grid(tmp_path / "a.nrrd", Geometry(matrix, (100, 512, 512)))


@pytest.mark.parametrize("in_pixels", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz"])
def test_what_belongs_to_a_picture_names_no_millimetres(tmp_path, name, in_pixels):
    """The grid stays, so that it lies upon the picture, whose file may name the dots of a print."""
    grid = Geometry(np.diag([-0.35, -0.35, 1, 1]), (1, 6, 5))
    values = np.random.default_rng(0).normal(size=grid.shape_kji).astype(np.float32)
    for write, array in ((write_values, values), (write_label_map, labels(3)[:1, :6, :5])):
        write(tmp_path / name, array, grid, in_pixels)
        if name == "a.nii.gz":
            assert nibabel.load(tmp_path / name).header.get_xyzt_units()[0] == ("unknown" if in_pixels else "mm")
    write_values(tmp_path / name, values, grid, in_pixels)
    volume = read_volume(tmp_path / name)
    assert volume.geometry.almost_equals(grid)
    assert volume.in_pixels is (in_pixels and name == "a.nrrd")  # many NIfTI files in mm name no unit
