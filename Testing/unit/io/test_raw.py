"""Files that cannot be read: one clear sentence, the file's name and not its folders, nothing on the terminal."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from FoundationSegLib.core.errors import FoundationSegError, GeometryError, InputError
from FoundationSegLib.io.raw import read_raw

Writer = Callable[..., Path]
TEXT = b"this is no image\n" * 60
UNREADABLE = "is no image that can be read"


def complaint(path: Path) -> str:
    """The message, after the checks that hold for every message."""
    with pytest.raises(FoundationSegError) as caught:
        read_raw(path)
    message = str(caught.value)
    assert message.startswith(path.name)
    assert "\n" not in message
    assert not re.search(r"itk|/|0x", message, re.IGNORECASE)
    return message


@pytest.mark.parametrize(
    "name", ["a.nrrd", "a.nii", "a.nii.gz", "a.mha", "a.png", "a.jpg", "a.tif", "a.dcm", "a.gif", "a"]
)
@pytest.mark.parametrize(("content", "problem"), [(TEXT, UNREADABLE), (b"", "is empty")])
def test_no_image(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert problem in complaint(path)
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in complaint(tmp_path / "a.nrrd")


def test_folder(tmp_path: Path) -> None:
    assert "is not a file" in complaint(tmp_path)


def test_gif_is_named_as_not_understood(shared_data: Callable[[str], Path]) -> None:
    assert "PNG" in complaint(shared_data("DRIVE/21_manual1.gif"))


@pytest.mark.parametrize("part", [0.5, 0.6])
@pytest.mark.parametrize(
    "name",
    [
        "TotalSegmentator/example_ct_sm.nii.gz",
        "nibabel/functional.nii",
        "pyradiomics/breast1_image.nrrd",
        "dcmqi/ct-3slice/01.dcm",
        "pydicom-data/US1_J2KR.dcm",
        "pydicom-data/emri_small.dcm",
        "MONAI/us_neck.png",
        "MONAI-model-zoo/sample_A1.jpg",
        "DRIVE/21_training.tif",
        "stardist/img2d.tif",
    ],
)
def test_cut_off_file(
    shared_data: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, part: float
) -> None:
    content = shared_data(name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(content[: int(part * len(content))])
    assert "damaged" in complaint(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii", "nii.gz", "vtk", "gipl", "gipl.gz", "mrc", "tiff"])
def test_cut_off_volume(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], noise: NDArray[np.int16], ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise.astype(np.float32)), str(path))
    assert np.array_equal(read_raw(path).voxels[0, ..., 0], noise)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in complaint(path)
    assert capfd.readouterr() == ("", "")


def test_cut_off_bitmap(tmp_path: Path, noise: NDArray[np.int16]) -> None:
    path = tmp_path / "a.bmp"
    sitk.WriteImage(sitk.GetImageFromArray(noise[0].astype(np.uint8)), str(path))
    assert np.array_equal(read_raw(path).voxels[0, 0, ..., 0], noise[0])
    path.write_bytes(path.read_bytes()[:-10])
    assert "damaged" in complaint(path)


def test_altered_bytes_in_a_compressed_nifti(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray(shared_data("TotalSegmentator/example_ct_sm.nii.gz").read_bytes())
    content[200_000] ^= 0xFF
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert "damaged" in complaint(path)


def test_header_without_its_voxels(tmp_path: Path, noise: NDArray[np.int16]) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    assert "damaged" in complaint(tmp_path / "a.mhd")


def test_axes_in_one_plane(tmp_path: Path, noise: NDArray[np.int16], write_nrrd: Writer) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", noise, "(1,0,0) (1,0,0) (0,0,2)", "domain domain domain")
    assert "do not span space" in complaint(path)
    with pytest.raises(GeometryError):
        read_raw(path)


def test_axis_of_length_zero(tmp_path: Path, write_nrrd: Writer) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", np.zeros((0, 3, 4)), "(1,0,0) (0,1,0) (0,0,2)", "domain domain domain")
    assert "holds no voxels" in complaint(path)


def test_time_axis_beside_space(tmp_path: Path, write_nrrd: Writer) -> None:
    values = np.zeros((2, 3, 4, 5))
    path = write_nrrd(tmp_path / "a.nrrd", values, "(1,0,0) (0,1,0) (0,0,2) none", "domain domain domain time")
    assert "axes that are not in space" in complaint(path)


def test_complex_numbers(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.complex64)), str(tmp_path / "a.nii"))
    with pytest.raises(InputError, match="complex64 and not whole or real"):
        read_raw(tmp_path / "a.nii")


def test_only_known_fields_are_kept(tmp_path: Path, noise: NDArray[np.int16], write_dicom: Writer) -> None:
    raw = read_raw(write_dicom(tmp_path / "a.dcm", noise[0]))
    assert raw.is_dicom
    assert raw.tags["0008|0060"] == "CT"
    assert not any(tag.startswith("0010") for tag in raw.tags)
