import getpass
import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from FoundationSegLib.installation.inspection import cpu, has_nvidia_driver, inspect_python, memory_bytes, without_paths


def test_the_running_python_says_what_it_has_without_importing_it():
    report = inspect_python(["numpy", "no-such-package"])
    assert report.packages == {"numpy": np.__version__, "no-such-package": ""}
    assert report.version == ".".join(map(str, sys.version_info[:3]))
    code = "import sys\nfrom FoundationSegLib.installation.inspection import inspect_python\n"
    code += "inspect_python(['torch', 'numpy'])\nprint({'torch', 'numpy'} & set(sys.modules))"
    run = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_computer_has_a_processor_and_memory():
    assert cpu().kind == "cpu"
    assert "threads" in cpu().name
    assert memory_bytes() == cpu().bytes > 1 << 28


def test_a_system_that_does_not_say_its_memory(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert memory_bytes() == 0


def test_a_python_of_the_operating_system_is_told_apart(monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert inspect_python([]).is_managed
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not inspect_python([]).is_managed, "an environment of one's own is not the system's"


def test_a_graphics_driver_is_seen_without_pytorch(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not has_nvidia_driver(tmp_path / "version")
    (tmp_path / "version").touch()
    assert has_nvidia_driver(tmp_path / "version")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not has_nvidia_driver(tmp_path / "version")
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert has_nvidia_driver(tmp_path / "version")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /usr/lib/x86_64/libc.so.6", "cannot open …/libc.so.6"),
        (r"DLL load failed: 'C:\Users\Jane Doe\AppData\torch.dll'", "DLL load failed: '…/torch.dll'"),
        (r"in \\server\share\people\jane\x.py", "in …/x.py"),
        ("C:/Users/jane/x.py and /home/jane/y.py", "…/x.py and …/y.py"),
        ("see https://example.org/a/b/c.html", "see https://example.org/a/b/c.html"),
        ("file:///home/jane/scan.nrrd", "…/scan.nrrd"),
        ("3/4 of it, and/or 5 mm/s", "3/4 of it, and/or 5 mm/s"),
        ("", ""),
    ],
)
def test_folders_go_and_what_tells_something_stays(text, expected, monkeypatch):
    monkeypatch.setenv("LOGNAME", "al")
    assert without_paths(text) == expected


def test_the_users_home_and_name_go(monkeypatch, tmp_path):
    home = tmp_path / "Jane Doe"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setenv("LOGNAME", "jdoe")
    text = without_paths(f"{home / 'x' / 'y.py'} is JDOE's, not jdoes'; {home}")
    assert text == "…/y.py is (user)'s, not jdoes'; ~"
    monkeypatch.setenv("LOGNAME", "al")
    assert without_paths("al dente, all") == "al dente, all"


def test_a_system_that_does_not_know_its_user(monkeypatch):
    def fail():
        raise OSError("no entry")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert without_paths("root") == "root"
