"""NIfTI headers: sheared and contradictory matrices are refused, NIfTI-2 is read."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.io.images import read_volume

Writer = Callable[..., Path]
STRAIGHT = np.diag((1.0, 1.0, 2.0, 1.0))
TURNED = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], float)


def with_shear(amount):
    matrix = STRAIGHT.copy()
    matrix[0, 2] = amount
    return matrix


@pytest.mark.parametrize("code", [1, 2])
@pytest.mark.parametrize("qform_code", [0, 1])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_sheared_sform_is_refused_whatever_the_qform(tmp_path, noise, write_nifti, code, qform_code, ending):
    fields = {"sform": with_shear(0.5), "sform_code": code, "qform_code": qform_code, "pixdim": (1, 1, 1, 2)}
    path = write_nifti(tmp_path / f"a.nii{ending}", noise, **fields)
    with pytest.raises(GeometryError, match=r"sheared.*resample"):
        read_volume(path)


@pytest.mark.parametrize("values", [{}, {"scl_slope": 2, "scl_inter": -3}])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_slight_shear_of_rounded_decimals_is_read_where_itk_refuses_it(tmp_path, noise, write_nifti, values, ending):
    path = write_nifti(tmp_path / f"a.{ending}", noise, sform=with_shear(0.001), pixdim=(1, 1, 1, 2), **values)
    volume = read_volume(path)
    assert np.allclose(volume.geometry.ijk_to_ras, with_shear(0.001), atol=1e-6)
    assert np.array_equal(volume.array_kji, noise * values.get("scl_slope", 1) + values.get("scl_inter", 0))
    with pytest.raises(GeometryError, match="sheared"):
        read_volume(write_nifti(tmp_path / f"a.{ending}", noise, sform=with_shear(0.003), pixdim=(1, 1, 1, 2)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code", [1, 2])
def test_sform_alone(tmp_path, noise, write_nifti, order, code):
    volume = read_volume(
        write_nifti(tmp_path / "a.nii", noise, sform=TURNED, sform_code=code, pixdim=(1, 1, 1, 2), order=order)
    )
    assert np.allclose(volume.geometry.ijk_to_ras, TURNED)
    assert np.array_equal(volume.array_kji, noise)
    assert volume.notes == ()


@pytest.mark.parametrize("flipped", [False, True])
def test_qform_alone(tmp_path, noise, write_nifti, flipped):
    volume = read_volume(write_nifti(tmp_path / "a.nii", noise, qform_code=1, pixdim=(-1 if flipped else 1, 1, 1, 2)))
    assert np.allclose(volume.geometry.ijk_to_ras, np.diag((1, 1, -2 if flipped else 2, 1)))
    assert volume.notes == ()


@pytest.mark.parametrize(("code", "used", "matrix"), [(1, "sform", TURNED), (2, "qform", STRAIGHT)])
def test_disagreement_is_noted(tmp_path, noise, write_nifti, code, used, matrix):
    path = write_nifti(tmp_path / "a.nii", noise, sform=TURNED, sform_code=code, qform_code=1, pixdim=(1, 1, 1, 2))
    volume = read_volume(path)
    assert np.allclose(volume.geometry.ijk_to_ras, matrix)
    assert any(f"the {used} was used" in note for note in volume.notes)


def test_contradictory_voxel_size_is_refused(tmp_path, noise, write_nifti):
    path = write_nifti(tmp_path / "a.nii", noise, sform=np.diag((2, 2, 4, 1)), pixdim=(1, 1, 1, 2))
    with pytest.raises(GeometryError, match=r"contradicts itself.*1 x 1 x 2 mm"):
        read_volume(path)


@pytest.mark.parametrize(("units", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units(tmp_path, noise, write_nifti, units, scale):
    volume = read_volume(write_nifti(tmp_path / "a.nii", noise, sform=TURNED, pixdim=(1, 1, 1, 2), xyzt_units=units))
    assert np.allclose(volume.geometry.ijk_to_ras[:3], TURNED[:3] * scale)


def test_single_slice_keeps_its_place(tmp_path, noise, write_nifti):
    placed = TURNED + np.diag((0, 0, 1, 0))
    volume = read_volume(write_nifti(tmp_path / "a.nii", noise[0], sform=placed, pixdim=(1, 1, 1, 3)))
    assert np.allclose(volume.geometry.ijk_to_ras, placed)


def test_single_slice_at_an_angle(tmp_path, noise, write_nifti):
    sagittal = [[0, 0, 3, 40], [1, 0, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(GeometryError, match="single slice at an angle"):
        read_volume(write_nifti(tmp_path / "a.nii", noise[0], sform=sagittal, pixdim=(1, 1, 1, 3)))


def test_zero_sform_counts_as_none(tmp_path, noise, write_nifti):
    path = write_nifti(tmp_path / "a.nii", noise, sform=np.zeros((3, 4)), qform_code=1, pixdim=(1, 1, 1, 2))
    assert np.allclose(read_volume(path).geometry.ijk_to_ras, STRAIGHT)


def test_matrix_that_is_not_finite(tmp_path, noise, write_nifti):
    with pytest.raises(GeometryError, match="not finite"):
        read_volume(write_nifti(tmp_path / "a.nii", noise, sform=np.full((3, 4), np.nan)))


def test_trailing_axes_of_length_one(tmp_path, noise, write_nifti):
    volume = read_volume(write_nifti(tmp_path / "a.nii", noise, sizes=(5, 6, 4, 1)))
    assert volume.array_kji.shape == (4, 6, 5)


def test_no_voxels(tmp_path, noise, write_nifti):
    with pytest.raises(InputError, match=r"holds no voxels.*4 x 3 x 0"):
        read_volume(write_nifti(tmp_path / "a.nii", noise, sizes=(4, 3, 0)))


@pytest.mark.parametrize(
    ("kind", "offset"),
    [(nibabel.Nifti1Header, offset) for offset in (0, 12, 347, -5, np.nan, np.inf, 1e30, 2**32 + 352)]
    + [(nibabel.Nifti2Header, offset) for offset in (0, 539, 2**40)],
)
def test_voxels_that_begin_nowhere_or_in_the_header_are_refused(tmp_path, noise, write_nifti, kind, offset):
    path = write_nifti(tmp_path / "a.nii", noise, kind=kind, vox_offset=offset)
    with pytest.raises(InputError, match=r"a\.nii: its voxels cannot begin at byte"):
        read_volume(path)


@pytest.mark.parametrize("fields", [{"pixdim": (1, np.nan, 1, 1)}, {"pixdim": (1, 1, 1, np.inf), "sform": TURNED}])
def test_voxel_sizes_that_are_no_numbers_are_refused_by_name(tmp_path, noise, write_nifti, fields):
    with pytest.raises(GeometryError, match=r"a\.nii: .*not finite"):
        read_volume(write_nifti(tmp_path / "a.nii", noise, **fields))


@pytest.mark.parametrize("ending", ["hdr", "img"])
def test_pair_of_files(tmp_path, noise, ending):
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "a.img"))
    assert np.array_equal(read_volume(tmp_path / f"a.{ending}").array_kji, noise)
    voxels = tmp_path / "a.img"
    voxels.write_bytes(voxels.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a\.img is cut off"):
        read_volume(tmp_path / f"a.{ending}")
    voxels.unlink()
    with pytest.raises(InputError, match=r"a\.img"):
        read_volume(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti2_is_read_as_nifti1_is(tmp_path, noise, write_nifti, name, order):
    fields = {"sform": TURNED, "pixdim": (1, 1, 1, 2), "order": order}
    volume = read_volume(write_nifti(tmp_path / name, noise, kind=nibabel.Nifti2Header, **fields))
    first = read_volume(write_nifti(tmp_path / "first.nii", noise, **fields))
    assert np.array_equal(volume.array_kji, first.array_kji) and volume.array_kji.dtype == np.int16
    assert volume.geometry.almost_equals(first.geometry)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-9])
    with pytest.raises(InputError, match="cut off"):
        read_volume(tmp_path / name)


def test_shared_nifti2_file(shared_data):
    path = shared_data("nibabel/example_nifti2.nii.gz")
    with pytest.raises(InputError, match="2 frames"):
        read_volume(path)
    image, volume = nibabel.load(path), read_volume(path, frame=1)
    assert np.array_equal(volume.array_kji.T, image.dataobj[..., 1])
    assert np.allclose(volume.geometry.ijk_to_ras, image.affine, atol=1e-4)
