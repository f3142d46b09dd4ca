"""Whether files are whole, by size, checksum, and what the libraries say."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.io.completeness import (
    check_complete,
    check_plausible,
    check_readable,
    check_stored_voxels,
    first_bytes,
    stored_bytes,
)

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


def test_stored_bytes(tmp_path: Path, zipped: Path) -> None:
    (tmp_path / "plain").write_bytes(CONTENT)
    assert stored_bytes(tmp_path / "plain") == stored_bytes(zipped) == len(CONTENT)
    assert first_bytes(tmp_path / "plain", 9) == first_bytes(zipped, 9) == CONTENT[:9]


@pytest.mark.parametrize("stop", [9, 30, -9, -1])
def test_cut_off_stream(zipped: Path, stop: int) -> None:
    zipped.write_bytes(zipped.read_bytes()[:stop])
    with pytest.raises(InputError, match=r"a\.gz is cut off"):
        stored_bytes(zipped)


def test_checksum_proves_the_voxels(zipped: Path) -> None:
    voxels = np.frombuffer(CONTENT[352:], np.uint8)
    check_stored_voxels(zipped, 352, voxels, len(CONTENT))


def test_other_voxels_are_counted(zipped: Path) -> None:
    rescaled = np.zeros(len(CONTENT) - 352, np.uint8)
    check_stored_voxels(zipped, 352, rescaled, len(CONTENT))
    with pytest.raises(InputError, match="cut off"):
        check_stored_voxels(zipped, 352, rescaled, len(CONTENT) + 1)


def test_more_than_deflate_can_hold(zipped: Path) -> None:
    check_plausible(zipped, len(CONTENT))
    with pytest.raises(InputError, match="cut off"):
        check_plausible(zipped, 10**7)


def test_several_streams_in_one_file(zipped: Path) -> None:
    zipped.write_bytes(gzip.compress(CONTENT[:500]) + gzip.compress(CONTENT[500:]))
    check_stored_voxels(zipped, 352, np.frombuffer(CONTENT[352:], np.uint8), len(CONTENT))


@pytest.mark.parametrize(
    "line", ["Premature end of JPEG file", "TIFFFetchDirectory: Can not read TIFF directory count."]
)
def test_libraries_are_heard(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jpg").write_bytes(CONTENT)
    with pytest.raises(InputError, match="damaged"):
        check_complete(tmp_path / "a.jpg", "JPEGImageIO", 10, [line])
    check_complete(tmp_path / "a.jpg", "JPEGImageIO", 10, ["TIFFReadDirectory: Warning, Unknown field with tag 700"])


def test_readable(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    check_readable(tmp_path / "a")
    for name, problem in (("b", "does not exist"), ("a/b", "does not exist"), (".", "is not a file")):
        with pytest.raises(InputError, match=problem):
            check_readable(tmp_path / name)
