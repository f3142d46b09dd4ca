import subprocess
import sys

import numpy as np

from FoundationSegLib.installation import inspection
from FoundationSegLib.installation.inspection import cpu, inspect_python, memory_bytes


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
    monkeypatch.setattr(inspection.os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert memory_bytes() == 0


def test_a_python_of_the_operating_system_is_told_apart(monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(inspection.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(inspection.sys, "prefix", inspection.sys.base_prefix)
    assert inspect_python([]).is_managed
    monkeypatch.setattr(inspection.sys, "prefix", str(tmp_path))
    assert not inspect_python([]).is_managed, "an environment of one's own is not the system's"


def test_a_graphics_driver_is_seen_without_pytorch(monkeypatch, tmp_path):
    monkeypatch.setattr(inspection, "_NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(inspection.sys, "platform", "linux")
    monkeypatch.setattr(inspection.shutil, "which", lambda name: None)
    assert not inspection.has_nvidia_driver()
    (tmp_path / "version").touch()
    assert inspection.has_nvidia_driver()
    monkeypatch.setattr(inspection.sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not inspection.has_nvidia_driver()
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert inspection.has_nvidia_driver()
