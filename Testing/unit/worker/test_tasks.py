"""Tasks about packages and checkpoints in real processes; and everything that can happen to one."""

import hashlib
import os
import signal
import sys
import venv
from pathlib import Path

import numpy as np
import pip
import pytest

from FoundationSegLib.errors import Cancelled, CheckpointError, InputError, PackageError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.installation.packages import INSTALLATIONS_VARIABLE
from FoundationSegLib.requests.maintenance import (
    ImportRequest,
    InspectRequest,
    InstallPackagesRequest,
    PlanPackagesRequest,
    RemovedCheckpoints,
    RemovePackagesRequest,
    RemoveRequest,
    WorkerSettings,
)
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process import worker_command
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Failed
from Testing.unit.installation.test_packages import wheel
from Testing.unit.worker.conftest import events_until, has_ended, until

COMMAND = worker_command()
INSPECT = InspectRequest(1, ("numpy",))
PLAN = PlanPackagesRequest(1, ("timm",))
PART = ("foundationseg_part",)
INSTALL = InstallPackagesRequest(1, ("timm",))
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")


@pytest.fixture
def do(make_client):
    """Have a request done by a process of its own, and wait for its answer."""

    def do(request, command=COMMAND, settings=None):
        return ask(make_client(settings, command), request)

    return do


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """``python -m pip`` runs this source text."""

    def write(source):
        (tmp_path / "pip").mkdir()
        (tmp_path / "pip" / "__init__.py").touch()
        (tmp_path / "pip" / "__main__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def bare_python(place: Path) -> Path:
    """A Python without any package; on Windows with pip."""
    venv.create(place, with_pip=sys.platform == "win32", symlinks=sys.platform != "win32")
    return place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def lend_pip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give workers this Python's pip, which is much faster than to install it; on Windows they have it."""
    if sys.platform != "win32":
        (folder / "tool").mkdir()
        (folder / "tool" / "pip").symlink_to(Path(pip.__file__).parent)
        monkeypatch.setenv("PYTHONPATH", str(folder / "tool"))


def test_a_python_says_what_it_has(do):
    report = do(INSPECT)
    assert report.packages == {"numpy": np.__version__}
    assert report.devices is None


def test_a_python_without_numpy_says_so(tmp_path):
    """It cannot answer about images; and what has to be installed has to be found out all the same."""
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    client = ProcessClient(command=worker_command(bare_python(tmp_path / "bare")), inherited=without)
    packages = ask(client, InspectRequest(1, ("numpy", "foundationseg_sample"))).packages
    client.close()
    assert packages["foundationseg_sample"] == ""
    assert sys.platform == "win32" or packages["numpy"] == ""


def test_the_devices_are_told_with_those_that_pytorch_can_use(make_client):
    reports = []
    devices = ask(make_client(command=COMMAND), InspectRequest(1, (), devices=True), reports.append).devices
    assert devices.devices[-1].kind == "cpu"
    assert devices.problem == ""
    assert [report.stage for report in reports] == ["devices"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/no/such/python",), "'python' cannot be started: No such file"),
        ((sys.executable, "-c", "print('hello')"), "ended with code 0 before"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with code 3 before"),
        ((sys.executable, "-c", "raise SystemExit('Unknown option: -P')"), "3.11 or newer"),
        ((sys.executable, "-P", "-m", "FoundationSegLib_is_not_here"), "does not find FoundationSeg"),
    ],
)
def test_what_is_no_python_of_use_is_told(do, command, message):
    with pytest.raises(InputError, match=message) as caught:
        do(INSPECT, command)
    assert "/no/such" not in str(caught.value), "folders are nobody's business"


@on_posix
def test_one_that_is_killed_fails_and_is_not_begun_again(make_client, fake_pip):
    fake_pip("import time; time.sleep(60)")
    client = make_client(command=COMMAND)
    client.submit(PLAN)
    until(client.poll)
    os.kill(client.worker_pid, signal.SIGKILL)
    (failed,) = (event for event in events_until(client, Failed) if isinstance(event, Failed))
    assert isinstance(failed.error, InputError) and "signal 9" in str(failed.error)
    assert client.worker_pid is None


FOUND = """
import sys, time, json
if '--dry-run' in sys.argv:
    open(sys.argv[sys.argv.index('--report') + 1], 'w').write(json.dumps({'install': [
        {'metadata': {'name': 'Timm', 'version': '1.0'}, 'download_info': {'url': 'file:///x'}}]}))
    raise SystemExit
"""


def test_pip_tells_what_it_does_line_by_line(make_client, fake_pip):
    fake_pip(FOUND + "for word in ('Collecting', 'Placing'):\n    print(word, 'timm', flush=True); time.sleep(0.4)\n")
    lines = []
    plan = ask(make_client(command=COMMAND), INSTALL, lambda report: lines.append(report.item))
    assert [line for line in lines if line] == ["Collecting timm", "Placing timm"]
    assert plan.packages[0].name == "Timm"


def test_what_has_another_source_does_not_come_from_pip(do, fake_pip):
    fake_pip(f"{FOUND}raise SystemExit('nothing may be installed')")
    with pytest.raises(PackageError, match="Timm would come from pip; the extension 'PyTorch'"):
        do(InstallPackagesRequest(1, ("timm",), ("torch", "timm")))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('ERROR: Could not install: [Errno 28] No space left on device'); raise SystemExit(1)", "No space left"),
        ("print('ERROR: No matching distribution found for timm'); raise SystemExit(1)", "No matching distribution"),
        ("raise SystemExit(1)", "the packages cannot be installed; nothing"),
        ("print('error: externally-managed-environment'); raise SystemExit(1)", "python3 -m venv"),
        ("pass", "update pip"),
    ],
)
def test_why_pip_fails_is_told(do, fake_pip, source, message):
    fake_pip(source)
    with pytest.raises(PackageError, match=message.replace("[", r"\[")):
        do(INSTALL)


@on_posix
@pytest.mark.parametrize("how", ["cancel", "close", "the client dies"])
def test_one_that_nobody_wants_any_more_ends_with_its_pip(make_client, fake_pip, tmp_path, how):
    fake_pip(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    client = make_client(command=COMMAND)
    client.submit(PLAN)
    until(lambda: client.poll() or ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pip_pid, pid = int((tmp_path / "pid").read_text()), client.worker_pid
    if how == "cancel":
        client.cancel(1)
        client.cancel(1)
        assert isinstance(events_until(client, Failed)[-1].error, Cancelled)
        client.close()
    elif how == "close":
        client.close()
        client.close()
    else:
        client._link._connection.close()  # as the system does
    until(lambda: has_ended(pip_pid) and has_ended(pid))


PLACING = """
import pathlib
note = pathlib.Path(__file__).with_name('note')
print('Collecting timm', flush=True)
if STAGE == 'placing':
    print('Installing collected packages: timm', flush=True)
note.write_text('begun')
try:
    time.sleep(WAIT)
    note.write_text('whole')
except KeyboardInterrupt:
    note.write_text('interrupted')
"""


@on_posix
@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize(("stage", "end"), [("collecting", "interrupted"), ("placing", "whole")])
def test_an_installation_is_stopped_softly(make_client, fake_pip, tmp_path, stage, end, how):
    """What pip has begun to put into its place is ended; before that, pip is interrupted, and can tidy up."""
    wait = 2 if stage == "placing" else 60
    fake_pip(FOUND + PLACING.replace("STAGE", repr(stage)).replace("WAIT", str(wait)))
    note, client = tmp_path / "pip" / "note", make_client(command=COMMAND)
    client.submit(INSTALL)
    until(lambda: (client.poll() and False) or note.exists())
    if how == "cancel":
        client.cancel(1)
        assert isinstance(events_until(client, Failed)[-1].error, Cancelled)
    else:
        client.close()
    until(lambda: note.read_text() == end)


@on_posix
def test_the_next_installation_repairs_what_was_cut(do, make_client, fake_pip, tmp_path, monkeypatch):
    """pip is killed when it has taken the old version away; the old one had come with another package, say."""
    monkeypatch.setenv(INSTALLATIONS_VARIABLE, str(tmp_path / "notes"))
    record = tmp_path / "lost_package-0.9.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: lost_package\nVersion: 0.9\n")
    log = tmp_path / "log"
    cut = f"import shutil; shutil.rmtree({str(record)!r}); open({str(log)!r}, 'w').close(); time.sleep(60)"
    found = FOUND.replace("Timm", "lost_package")
    fake_pip(found + cut)
    client = make_client(command=COMMAND)
    client.submit(INSTALL)
    until(lambda: (client.poll() and False) or log.exists())
    os.kill(client.worker_pid, signal.SIGKILL)
    events_until(client, Failed)
    (tmp_path / "pip" / "__main__.py").write_text(
        f"{found}open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    )
    do(INSTALL)
    repair, install = log.read_text().splitlines()
    assert "--force-reinstall --no-deps" in repair and repair.endswith("-- lost_package==1.0")
    assert install.endswith("-- timm") and "--force-reinstall" not in install
    assert list((tmp_path / "notes").iterdir()) == []


@on_posix
def test_one_that_does_not_hear_is_killed(make_client, tmp_path):
    path = tmp_path / "deaf"
    client = make_client(command=(sys.executable, "-c", f"import time; open({str(path)!r}, 'w'); time.sleep(60)"))
    client.submit(INSPECT)
    pid = client.worker_pid
    until(path.exists)
    client.cancel(1)
    assert isinstance(events_until(client, Failed)[-1].error, Cancelled)
    until(lambda: has_ended(pid))


def test_the_real_pip_installs_into_another_python(do, tmp_path, monkeypatch):
    """The whole way, with packages from a folder: looked for, installed, found; and what is there is kept."""
    index, place = tmp_path / "index", tmp_path / "other"
    index.mkdir()
    for version in ("1.0", "2.0"):
        wheel(index, "torch", version)
        wheel(index, "foundationseg_sample", version)
    command = worker_command(bare_python(place))
    lend_pip(tmp_path, monkeypatch)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}.items():
        monkeypatch.setenv(name, value)

    def installed():
        return do(InspectRequest(1, ("torch", "foundationseg_sample")), command).packages

    assert installed() == {"torch": "", "foundationseg_sample": ""}
    do(InstallPackagesRequest(1, ("torch<2", "foundationseg_sample<2")), command)
    assert installed() == {"torch": "1.0", "foundationseg_sample": "1.0"}
    plan = do(PlanPackagesRequest(1, ("foundationseg_sample>=2",)), command)
    assert [(p.name, p.version, p.installed) for p in plan.packages] == [("foundationseg_sample", "2.0", "1.0")]
    with pytest.raises(PackageError, match="cannot be installed"):
        do(InstallPackagesRequest(1, ("torch>=2",)), command)
    assert installed()["torch"] == "1.0"


def fingerprint(folder: Path) -> str:
    """A hash of all paths below a folder, with what is in the files."""
    parts = ((path, path.read_bytes() if path.is_file() else b"") for path in sorted(folder.rglob("*")))
    return hashlib.sha256(repr([(str(path), content) for path, content in parts]).encode()).hexdigest()


def test_private_packages_leave_those_of_the_python_as_they_are(do, tmp_path, monkeypatch):
    """The real pip, from a folder of wheels: nothing of Slicer's own is changed, and Slicer imports nothing of it."""
    wheels, root, place = tmp_path / "Räder 1", tmp_path / "Jürgen M" / "FSeg", tmp_path / "slicer"
    wheels.mkdir()
    for name, requires in (("packaging", ()), ("foundationseg_part", ()), ("foundationseg_sample", PART)):
        wheel(wheels, name, "26.0", requires)
    command = worker_command(bare_python(place))
    settings = WorkerSettings(packages_folder=root, wheels_folder=wheels)
    lend_pip(tmp_path, monkeypatch)
    before, names = fingerprint(place), ("foundationseg_sample", "foundationseg_part")
    do(InstallPackagesRequest(1, names[:1]), command, settings)
    assert do(InspectRequest(1, names), command, settings).packages == dict.fromkeys(names, "26.0")
    assert do(InspectRequest(1, names), command).packages == dict.fromkeys(names, "")
    assert fingerprint(place) == before
    assert not any(str(root) in path for path in sys.path) and not set(names) & set(sys.modules)
    assert do(RemovePackagesRequest(1), command, settings).bytes_freed > 0 and list(root.iterdir()) == []


CARD = (Path(__file__).resolve().parents[3] / "Resources" / "ModelCards" / "slimsam-77.toml").stem


def test_checkpoints_are_imported_checked_and_removed(do, tmp_path):
    source, store = tmp_path / "files", Store(tmp_path / "store")
    settings = WorkerSettings(store_folder=store.folder)
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"not it")
    with pytest.raises(CheckpointError, match=r"wrong|not in"):
        do(ImportRequest(1, CARD, source), settings=settings)
    (store.folder / "models" / CARD / "x").mkdir(parents=True)
    (store.folder / "models" / CARD / "x" / "part").write_bytes(bytes(1000))
    assert do(RemoveRequest(1, (CARD, "medsam")), settings=settings) == RemovedCheckpoints(1000)
    assert not (store.folder / "models" / CARD).exists()
