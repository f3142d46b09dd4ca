"""Results: their formats by name, and files that are replaced as a whole or not at all."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.folders import check_writable, output_format, replace_atomically
from FoundationSegLib.io.images import read_volume


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.seg.nrrd", ".seg.nrrd"),
        ("1.2.3.nii.gz", ".nii.gz"),
        ("a.b.json", ".json"),
        ("A.NII.GZ", ".nii.gz"),
        ("a", ""),
    ],
)
def test_new_file(tmp_path, name, ending):
    with replace_atomically(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(ending)
        assert not temporary.exists()
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("error", [InputError("bad"), KeyboardInterrupt()])
def test_old_file_stays_on_failure(tmp_path, error):
    path = tmp_path / "a.nrrd"
    path.write_text("old")
    with pytest.raises(type(error)), replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise error
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_full_disk_is_an_output_error(tmp_path):
    with (
        pytest.raises(OutputError, match=r"a\.nrrd cannot be written: No space left"),
        replace_atomically(tmp_path / "a.nrrd") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_nothing_written(tmp_path):
    with pytest.raises(OutputError, match=r"a\.nrrd cannot be written"), replace_atomically(tmp_path / "a.nrrd"):
        pass


def test_permissions_are_kept(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_text("old")
    path.chmod(0o640)
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "a.nrrd"
    link.symlink_to(tmp_path / "real" / "b.nrrd")
    with replace_atomically(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "b.nrrd").read_text() == "new"


def unwritable(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.nrrd").mkdir()
    return [
        (tmp_path / "missing" / "a.nrrd", "the folder for a.nrrd does not exist"),
        (tmp_path / "file" / "a.nrrd", "the folder for a.nrrd does not exist"),
        (tmp_path / "folder.nrrd", "folder.nrrd is not a file"),
        (Path("/dev/null"), "null is not a file"),
        (Path("/sys/a.nrrd"), "a.nrrd cannot be written there"),
        (Path("/proc/a.nrrd"), "a.nrrd cannot be written there"),
    ]


def test_check_names_what_is_wrong(tmp_path):
    for path, problem in unwritable(tmp_path):
        if path.is_relative_to(tmp_path) or path.parent.is_dir():
            with pytest.raises(OutputError, match=problem):
                check_writable(path)


def test_replacing_fails_where_the_check_fails(tmp_path):
    for path, _ in unwritable(tmp_path):
        if path == Path("/dev/null"):
            continue
        with pytest.raises(OutputError), replace_atomically(path) as temporary:
            temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "x"


def test_check_leaves_nothing_behind(tmp_path):
    (tmp_path / "old.nrrd").write_text("old")
    check_writable(tmp_path / "old.nrrd")
    check_writable(tmp_path / "new.seg.nrrd")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.seg.nrrd", "seg.nrrd"), ("a.NII.GZ", "nii.gz"), ("a.nrrd", "nrrd"), ("x.y.nii.gz", "nii.gz")],
)
def test_output_format(name, expected):
    assert output_format(Path(name)) == expected


@pytest.mark.parametrize("name", ["a.nii", "a.mha", "a", "nrrd", "a.nrrd.txt"])
def test_other_formats(name):
    with pytest.raises(OutputError, match=r"\.seg\.nrrd, \.nii\.gz, \.nrrd"):
        output_format(Path(name))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name is Unicode there")
def test_a_name_that_is_no_utf8_is_refused_where_itk_would_abort(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Sch\xe4del"))
    folder.mkdir()
    (folder / "ct.nrrd").write_bytes(b"NRRD0004")
    for call in (read_volume, check_writable, lambda path: read_volume(path.parent)):
        with pytest.raises((InputError, OutputError), match=r"^ct\.nrrd: its name, or that of a folder, is no UTF-8"):
            call(folder / "ct.nrrd")
    with pytest.raises(OutputError, match="no UTF-8"), replace_atomically(folder / "ct.nrrd") as temporary:
        temporary.write_text("new")
