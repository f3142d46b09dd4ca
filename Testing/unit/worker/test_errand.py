"""Errands in real processes: looking, installing, moving checkpoints; and everything that can happen to one."""

import os
import signal
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from FoundationSegLib.core.errors import Cancelled, CheckpointError, InputError, PackageError
from FoundationSegLib.core.inspection import PythonReport
from FoundationSegLib.hub.store import Store
from FoundationSegLib.worker.errand import Errand
from FoundationSegLib.worker.settings import worker_command
from Testing.unit.worker.conftest import has_ended, until

COMMAND = worker_command("", "errand_main")
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")


def start(task="inspect", command=COMMAND, **arguments):
    return Errand.start(command, task, arguments or {"packages": ["numpy"], "devices": False})


def ended(errand):
    errand.poll()
    return errand.is_done


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """``python -m pip`` runs this source text."""

    def write(source):
        (tmp_path / "pip").mkdir()
        (tmp_path / "pip" / "__init__.py").touch()
        (tmp_path / "pip" / "__main__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def test_a_python_says_what_it_has():
    report = PythonReport.from_document(start().finish())
    assert report.packages == {"numpy": np.__version__}
    assert report.devices is None


def test_a_python_without_numpy_says_so(tmp_path):
    """It could not even start a worker; and what has to be installed has to be found out all the same."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=sys.platform != "win32")
    python = bare / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = {"packages": ["numpy", "torch"], "devices": False}
    errand = Errand.start(worker_command(python, "errand_main"), "inspect", asked, without)
    assert PythonReport.from_document(errand.finish()).packages == {"numpy": "", "torch": ""}


def test_the_devices_are_told_with_those_that_pytorch_can_use():
    reports = []
    errand = start(packages=[], devices=True)
    until(lambda: reports.extend(errand.poll()) or errand.is_done, 60)
    devices = PythonReport.from_document(errand.result()).devices
    assert devices.devices[-1].kind == "cpu"
    assert devices.problem == ""
    assert [report.stage for report in reports] == ["devices"]


def test_whoever_asks_does_not_wait():
    errand = start()
    assert errand.poll() == ()
    assert not errand.is_done
    until(lambda: ended(errand))
    assert errand.poll() == ()
    errand.close()
    assert errand.result()["packages"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/no/such/python",), "'python' cannot be started: No such file"),
        ((sys.executable, "-c", "print('hello')"), "ended with code 0 before"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with code 3 before"),
        ((sys.executable, "-c", "raise SystemExit('Unknown option: -P')"), "3.11 or newer"),
        ((sys.executable, "-P", "-m", "FoundationSegLib_is_not_here"), "does not find FoundationSeg"),
        (
            (sys.executable, "-c", "print('{\"result\"'); print('[1]'); print('{\"progress\": {}}')"),
            "ended with code 0",
        ),
    ],
)
def test_what_is_no_python_of_use_is_told(command, message):
    with pytest.raises(InputError, match=message) as caught:
        start(command=command).finish()
    assert "/no/such" not in str(caught.value), "folders are nobody's business"


@on_posix
def test_an_errand_that_is_killed_fails(fake_pip):
    fake_pip("import time; time.sleep(60)")
    errand = start("plan_packages", requirements=["timm"])
    until(errand.poll)
    os.kill(errand.process.pid, signal.SIGKILL)
    with pytest.raises(InputError, match="signal 9"):
        errand.finish()


def test_pip_tells_what_it_does_line_by_line(fake_pip):
    fake_pip(
        "import sys, time, json\n"
        "if '--dry-run' in sys.argv:\n"
        "    open(sys.argv[sys.argv.index('--report') + 1], 'w').write(json.dumps({'install': [\n"
        "        {'metadata': {'name': 'timm', 'version': '1.0'}, 'download_info': {'url': 'file:///x'}}]}))\n"
        "else:\n"
        "    print('Collecting timm', flush=True); time.sleep(0.4)\n"
        "    print('Installing timm', flush=True); time.sleep(0.4)\n"
    )
    errand, lines = start("install_packages", requirements=["timm"], from_elsewhere=["torch"]), []
    until(lambda: lines.extend(report.item for report in errand.poll()) or errand.is_done)
    assert [line for line in lines if line] == ["Collecting timm", "Installing timm"]
    assert errand.result()["packages"][0]["name"] == "timm"


def test_pytorch_does_not_come_from_pip_where_it_has_another_source(fake_pip):
    fake_pip(
        "import sys, json\n"
        "assert '--dry-run' in sys.argv, 'nothing may be installed'\n"
        "open(sys.argv[sys.argv.index('--report') + 1], 'w').write(json.dumps({'install': [\n"
        "    {'metadata': {'name': 'Torch', 'version': '2.9'}, 'download_info': {'url': 'file:///x'}}]}))\n"
    )
    with pytest.raises(PackageError, match="Torch would come from pip; the extension 'PyTorch'"):
        start("install_packages", requirements=["timm"], from_elsewhere=["torch", "torchvision"]).finish()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('ERROR: Could not install: [Errno 28] No space left on device'); raise SystemExit(1)", "No space left"),
        ("print('ERROR: No matching distribution found for timm'); raise SystemExit(1)", "No matching distribution"),
        ("raise SystemExit(1)", "the packages cannot be installed; nothing"),
        ("raise SystemExit(f'{__file__}: No module named pip')", "this Python has no pip"),
        ("pass", "update pip"),
    ],
)
def test_why_pip_fails_is_told(fake_pip, source, message):
    fake_pip(source)
    with pytest.raises(PackageError, match=message.replace("[", r"\[")):
        start("install_packages", requirements=["timm"], from_elsewhere=[]).finish()


@on_posix
@pytest.mark.parametrize("how", ["cancel", "close", "the client dies"])
def test_one_that_nobody_wants_any_more_ends_with_its_pip(fake_pip, tmp_path, how):
    fake_pip(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    errand = start("plan_packages", requirements=["timm"])
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pip = int((tmp_path / "pid").read_text())
    if how == "cancel":
        errand.cancel()
        errand.cancel()
        until(lambda: ended(errand), 5)
    elif how == "close":
        errand.close()
        errand.close()
    else:
        errand.process.stdin.close()  # as the system does
        until(lambda: ended(errand), 5)
    until(lambda: has_ended(pip) and has_ended(errand.process.pid), 5)
    assert errand.is_done
    with pytest.raises(Cancelled):
        errand.result()


@on_posix
def test_one_that_does_not_hear_is_killed(tmp_path):
    path = tmp_path / "deaf"
    code = f"import time; open({str(path)!r}, 'w'); time.sleep(60)"
    errand = start(command=(sys.executable, "-c", code))
    until(path.exists)
    errand.cancel()
    until(lambda: ended(errand), 5)
    with pytest.raises(Cancelled):
        errand.result()


def test_nothing_is_left_in_the_folder_for_what_comes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start().finish()
    with pytest.raises(InputError):
        start(command=("/no/such/python",))
    assert list(tmp_path.iterdir()) == []


def wheel(folder, name, version):
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def test_the_real_pip_installs_into_another_python(tmp_path, monkeypatch):
    """The whole way, with packages from a folder: looked for, installed, found; and what is there is kept."""
    index, place = tmp_path / "index", tmp_path / "other"
    index.mkdir()
    for version in ("1.0", "2.0"):
        wheel(index, "torch", version)
        wheel(index, "foundationseg_sample", version)
    venv.create(place, with_pip=True, symlinks=sys.platform != "win32")
    command = worker_command(place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"), "errand_main")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}.items():
        monkeypatch.setenv(name, value)

    def installed():
        return start(command=command, packages=["torch", "foundationseg_sample"], devices=False).finish()["packages"]

    assert installed() == {"torch": "", "foundationseg_sample": ""}
    asked = {"requirements": ["torch<2", "foundationseg_sample<2"], "from_elsewhere": []}
    start("install_packages", command, **asked).finish()
    assert installed() == {"torch": "1.0", "foundationseg_sample": "1.0"}
    plan = start("plan_packages", command, requirements=["foundationseg_sample>=2"]).finish()
    assert [(p["name"], p["version"], p["installed"]) for p in plan["packages"]] == [
        ("foundationseg_sample", "2.0", "1.0")
    ]
    with pytest.raises(PackageError, match="cannot be installed"):
        start("install_packages", command, requirements=["torch>=2"], from_elsewhere=[]).finish()
    assert installed()["torch"] == "1.0"


CARD = (Path(__file__).resolve().parents[3] / "Resources" / "ModelCards" / "slimsam-77.toml").stem


def test_checkpoints_are_imported_checked_and_removed(tmp_path):
    source, store = tmp_path / "files", Store(tmp_path / "store")
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"not it")
    asked = {"model": CARD, "source": str(source), "store": str(store.folder), "accept_license": False}
    with pytest.raises(CheckpointError, match=r"wrong|not in"):
        start("import_checkpoint", **asked).finish()
    (store.folder / "models" / CARD / "x").mkdir(parents=True)
    (store.folder / "models" / CARD / "x" / "part").write_bytes(bytes(1000))
    freed = start("remove_checkpoints", models=[CARD, "medsam"], store=str(store.folder)).finish()
    assert freed == {"bytes_freed": 1000}
    assert not (store.folder / "models" / CARD).exists()
