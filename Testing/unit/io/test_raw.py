"""Files that cannot be read: one clear sentence, the file's name and not its folders, nothing on the terminal."""

import gzip
import os
import re
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import FoundationSegError, InputError
from FoundationSegLib.io.completeness import (
    check_complete,
    quiet,
)
from FoundationSegLib.io.raw import read_raw

Writer = Callable[..., Path]
TEXT = b"this is no image\n" * 60
UNREADABLE = "is no image that can be read"


def complaint(path):
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
def test_no_image(tmp_path, capfd, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    assert problem in complaint(path)
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path):
    assert "does not exist" in complaint(tmp_path / "a.nrrd")


def test_folder(tmp_path):
    assert "is not a file" in complaint(tmp_path)


def test_gif_is_named_as_not_understood(shared_data):
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
def test_cut_off_file(shared_data, tmp_path, capfd, name, part):
    content = shared_data(name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(content[: int(part * len(content))])
    assert "damaged" in complaint(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii", "nii.gz", "vtk", "gipl", "gipl.gz", "mrc", "tiff"])
def test_cut_off_volume(tmp_path, capfd, noise, ending):
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise.astype(np.float32)), str(path))
    assert np.array_equal(read_raw(path).voxels[0, ..., 0], noise)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in complaint(path)
    assert capfd.readouterr() == ("", "")


def test_cut_off_bitmap(tmp_path, noise):
    path = tmp_path / "a.bmp"
    sitk.WriteImage(sitk.GetImageFromArray(noise[0].astype(np.uint8)), str(path))
    assert np.array_equal(read_raw(path).voxels[0, 0, ..., 0], noise[0])
    path.write_bytes(path.read_bytes()[:-10])
    assert "damaged" in complaint(path)


def test_altered_bytes_in_a_compressed_nifti(shared_data, tmp_path):
    content = bytearray(shared_data("TotalSegmentator/example_ct_sm.nii.gz").read_bytes())
    content[200_000] ^= 0xFF
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert "damaged" in complaint(path)


HUGE = (
    (10**6,) * 3,
    (0, 6, 4),
    (-5, 6, 4),
    (2**32 + 5, 6, 5),
    (2**31, 2**31, 4),
    (10**30, 6, 4),
    (1, 1, 10**7),
    (5, 6, 5),
)


@pytest.mark.parametrize("sizes", HUGE, ids=str)
@pytest.mark.parametrize(
    "ending", ["nrrd", "gz.nrrd", "mha", "deflated.mha", "nii", "nii.gz", "png", "tif", "bmp", "vtk"]
)
def test_sizes_that_a_file_cannot_hold_take_no_memory(tmp_path, noise, ending, sizes):
    """The header is changed and the voxels stay; what its fields cannot hold is cut to them."""
    path, flat = tmp_path / f"a.{ending}", ending in ("png", "tif", "bmp")
    image = sitk.GetImageFromArray(noise[0].astype(np.uint8) if flat else noise)
    sitk.WriteImage(image, str(path), useCompression=ending in ("gz.nrrd", "deflated.mha"))
    content = gzip.decompress(path.read_bytes()) if ending == "nii.gz" else path.read_bytes()
    text = " ".join(map(str, sizes)).encode()
    i, j, k = (max(-(2**15), min(n, 2**15 - 1)) for n in sizes)
    if ending.startswith("nii"):
        content = content[:42] + struct.pack("<3h", i, j, k) + content[48:]
    elif ending == "png":
        head = b"IHDR" + struct.pack(">2I", i % 2**31, j + k) + content[24:29]
        content = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    elif ending == "bmp":
        content = content[:18] + struct.pack("<2i", i, j + k) + content[26:]
    elif ending == "tif":
        size = {256: i % 2**31, 257: j + k}
        at = {tag: content.rindex(struct.pack("<H", tag), int.from_bytes(content[4:8], "little")) for tag in size}
        for tag, n in size.items():
            content = content[: at[tag]] + struct.pack("<2H2I", tag, 4, 1, n) + content[at[tag] + 12 :]
    else:
        names = rb"(sizes: |DimSize = |DIMENSIONS )[-\d ]+"
        content = re.sub(names, lambda match: match[1] + text, content, count=1)
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = complaint(path)
    assert re.search(f"cut off or damaged|holds no voxels|{UNREADABLE}", problem)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_header_without_its_voxels(tmp_path, noise):
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    assert "damaged" in complaint(tmp_path / "a.mhd")


SPACE = "(1,0,0) (0,1,0) (0,0,2)"


@pytest.mark.parametrize(
    ("values", "directions", "kinds", "problem"),
    [
        (np.ones((4, 6, 5)), "(1,0,0) (1,0,0) (0,0,2)", "domain domain domain", "do not span space"),
        (np.zeros((0, 3, 4)), SPACE, "domain domain domain", "holds no voxels"),
        (np.zeros((2, 3, 4, 5)), f"{SPACE} none", "domain domain domain time", "axes that are not in space"),
    ],
)
def test_axes_that_are_no_grid(tmp_path, write_nrrd, values, directions, kinds, problem):
    assert problem in complaint(write_nrrd(tmp_path / "a.nrrd", values, directions, kinds))


def test_complex_numbers(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.complex64)), str(tmp_path / "a.nii"))
    with pytest.raises(InputError, match="complex64 and not whole or real"):
        read_raw(tmp_path / "a.nii")


def test_only_known_fields_are_kept(tmp_path, noise, write_dicom):
    raw = read_raw(write_dicom(tmp_path / "a.dcm", noise[0]))
    assert raw.is_dicom
    assert raw.tags["0008|0060"] == "CT"
    assert not any(tag.startswith("0010") for tag in raw.tags)


CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize(
    "line", ["Premature end of JPEG file", "TIFFFetchDirectory: Can not read TIFF directory count."]
)
def test_libraries_are_heard(tmp_path, line):
    (tmp_path / "a.jpg").write_bytes(CONTENT)
    with pytest.raises(InputError, match="damaged"):
        check_complete(tmp_path / "a.jpg", "JPEGImageIO", 10, [line])
    check_complete(tmp_path / "a.jpg", "JPEGImageIO", 10, ["TIFFReadDirectory: Warning, Unknown field with tag 700"])


def test_lines_are_caught_and_the_terminal_comes_back(capfd):
    sys.stdout.write("before\n")
    with quiet() as lines:
        os.write(1, b"to standard output\n")
        os.write(2, b"to standard error\n")
    sys.stdout.write("after\n")
    sys.stderr.write("error\n")
    assert lines == ["to standard output", "to standard error"]
    assert capfd.readouterr() == ("before\nafter\n", "error\n")


def test_nested_and_after_an_error(capfd):
    with pytest.raises(ValueError, match="stop"), quiet(), quiet():
        os.write(2, b"hidden\n")
        raise ValueError("stop")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"


@pytest.mark.parametrize("shown", [False, True])
def test_itk_warnings_are_as_before(shown):
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        with quiet():
            assert not sitk.ProcessObject.GetGlobalWarningDisplay()
        assert sitk.ProcessObject.GetGlobalWarningDisplay() is shown
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
