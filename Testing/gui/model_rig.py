"""A computer for the dialogs about models: its packages, its pip, its PyTorch extension and a Hub, all of them local.

What is "installed" is a folder of package records on the path of this process and of every worker; pip is a short
script that writes there. Workers, the store and the downloads are the real ones.
"""

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from FoundationSegLib.api import Installation
from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.errors import Cancelled
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.worker.process import Timeouts
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Event, Failed
from Testing.unit.hub.hub_cases import REPOSITORY, card_text, tell_processes
from Testing.unit.hub.loopback_hub import LoopbackHub, run_hub
from Testing.unit.worker import hub_worker

FILES = {"weights/model.safetensors": random.Random(3).randbytes(2_000_000), "config.json": b'{"layers": 2}'}
PANEL = Path(__file__).resolve().parents[2] / "FoundationSeg"
MUST_ACCEPT = ('commercial_use = "yes"', 'commercial_use = "no"\nmust_accept = true')
NEEDS_SAMPLE = ('packages = ["fakelib"]', 'packages = ["foundationseg_sample>=1"]')
NEEDS_NOTHING = ('packages = ["fakelib"]', "packages = []")
NEEDS_TORCH = ('packages = ["fakelib"]', 'packages = ["torch>=99", "foundationseg_sample>=1"]')

_PIP = """
import json, os, re, sys, time
from pathlib import Path
site, mode = Path(__file__).resolve().parents[1], Path(__file__).with_name("mode").read_text()
if mode == "fails":
    print("ERROR: [Errno 28] No space left on device")
    raise SystemExit(1)
wanted = sys.argv[sys.argv.index("--") + 1:]
is_private = "--ignore-installed" in sys.argv or "--target" in sys.argv
names = [re.split("[=!<>]", text)[0] for text in wanted if is_private or not text.startswith("torch")]
if mode == "brings torch":
    names.append("torch")
if "--dry-run" in sys.argv:
    found = [{"metadata": {"name": n, "version": "99.5" if n in ("torch", "numpy") else "1.5"},
              "download_info": {"url": "file:///x"}} for n in names]
    Path(sys.argv[sys.argv.index("--report") + 1]).write_text(json.dumps({"install": found}))
    raise SystemExit
for name in names:
    print("Collecting", name, flush=True)
    time.sleep(60 if mode == "hangs" else 0.3)
    if mode != "forgets":
        version = "99.5" if name in ("torch", "numpy") else "1.5"
        folder = Path(sys.argv[sys.argv.index("--target") + 1]) if is_private else site
        record = folder / f"{name}-{version}.dist-info"
        record.mkdir(exist_ok=True, parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        (record / "RECORD").write_text(f"{record.name}/METADATA,,\\n")
print("Successfully installed", flush=True)
time.sleep(0.3)
"""

_TORCH = """
from types import SimpleNamespace
cuda = mps = SimpleNamespace(is_available=lambda: False)
backends, version = SimpleNamespace(mps=mps), SimpleNamespace(cuda=None)
"""

_EXTENSION = """
from pathlib import Path
class PyTorchUtilsLogic:
    asked = []
    def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None,
                     torchvisionVersionRequirement=None):
        self.asked.append((askConfirmation, torchVersionRequirement))
        site = Path(__file__).resolve().parents[1]
        if (site / "no network").exists():
            raise RuntimeError("no network")
        if (site / "defect").exists():
            raise ZeroDivisionError("nobody thought of it")
        record = site / "torch-99.1.dist-info"
        record.mkdir()
        (record / "METADATA").write_text("Metadata-Version: 2.1\\nName: torch\\nVersion: 99.1\\n")
        return object()
"""


class ModelRig:
    """What the fixture ``rig`` offers.

    Attributes:
        site: where packages are "installed".
        hub: the Hub on loopback.
        full_disk: as long as this file exists, downloads cannot be written.
        stopped: how often the panel's worker was told to end.
    """

    def __init__(self, desk: Any, folder: Path, patch: pytest.MonkeyPatch, hub: LoopbackHub) -> None:
        self.desk, self.folder, self.patch, self.hub = desk, folder, patch, hub
        self.site, self.full_disk, self.stopped = folder / "site", folder / "full", 0
        self.models: list[Any] = []
        self.dialogs: list[Any] = []
        (self.site / "pip").mkdir(parents=True)
        (self.site / "pip" / "__init__.py").touch()
        (self.site / "pip" / "__main__.py").write_text(_PIP)
        self.pip("works")
        patch.syspath_prepend(str(self.site))
        patch.setenv("PYTHONPATH", str(self.site))
        (folder / "cards").mkdir()
        patch.setenv(CARDS_VARIABLE, str(folder / "cards"))
        patch.setenv(STORE_VARIABLE, str(folder / "store"))
        tell_processes(patch, hub, folder / "hf")

    def pip(self, mode: str) -> None:
        """``works``, ``fails``, ``hangs``, ``forgets`` (says that it worked), or ``brings torch``."""
        (self.site / "pip" / "mode").write_text(mode)

    def card(self, *replacements: tuple[str, str]) -> None:
        """The user's own card ``far``, of the Hub."""
        (self.folder / "cards" / "far.toml").write_text(card_text(*(replacements or (NEEDS_NOTHING,)), files=FILES))

    def extension(self) -> None:
        """The PyTorch extension is installed."""
        (self.site / "extension").mkdir()
        (self.site / "extension" / "PyTorchUtils.py").write_text(_EXTENSION)
        self.patch.syspath_prepend(str(self.site / "extension"))

    def light_torch(self) -> None:
        """Workers import a PyTorch that knows no graphics card, and takes no seconds."""
        (self.site / "torch.py").write_text(_TORCH)

    def open(self) -> Any:
        """The model installer, with a worker for downloads that can meet a full disk."""
        from FoundationSegPanel.model_installer import ModelInstaller

        self.models.append(ModelInstaller(self._stop, open_client=self._open_client))
        return self.models[-1]

    def show(self, dialog: Any, *arguments: Any) -> Any:
        """Open a dialog, which is closed in the end."""
        self.dialogs.append(dialog)
        dialog.show(*arguments)
        self.desk.process_events()
        return dialog

    def _open_client(self, installation: Installation, timeouts: Timeouts) -> ProcessClient:
        command = hub_worker.command(self.full_disk)
        return ProcessClient(installation.settings, command, timeouts, installation.inherited)

    def _stop(self) -> None:
        self.stopped += 1

    def wait(self, condition: Any, seconds: float = 20.0) -> Any:
        return self.desk.wait_until(condition, seconds)


class TaskClient:
    """A client of a task: it replies at once with the events that a test makes of the request; until then it goes on.

    Attributes:
        requests, volumes: that were submitted and sent.
    """

    worker_pid, is_busy = 0, True

    def __init__(self, reply: Callable[[Any], Iterable[Event]]) -> None:
        self._reply, self._events = reply, list[Event]()
        self.requests: list[Any] = []
        self.volumes: dict[str, Volume] = {}

    def send_volume(self, volume: Volume) -> None:
        self.volumes[volume.key] = volume

    def submit(self, request: Any) -> None:
        self.requests.append(request)
        self._events += self._reply(request)

    def cancel(self, request_id: int) -> None:
        self._events.append(Failed(request_id, Cancelled("stopped")))

    def poll(self) -> tuple[Event, ...]:
        events, self._events = tuple(self._events), []
        return events

    def close(self) -> None:
        pass


def cells(table: Any, columns: int) -> list[tuple[str, ...]]:
    """The texts of a table's first columns, row by row."""
    return [tuple(table.item(row, column).text() for column in range(columns)) for row in range(table.rowCount)]


@contextlib.contextmanager
def model_rig(desk: Any, folder: Path) -> Iterator[ModelRig]:
    """The rig; what it changed is put back at its end, and nothing goes on."""
    for name in [name for name in sys.modules if name.startswith("PyTorchUtils")]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch, run_hub() as hub:
        patch.syspath_prepend(str(PANEL))
        hub.add(REPOSITORY, FILES)
        rig = ModelRig(desk, folder, patch, hub)
        try:
            yield rig
        finally:
            for dialog in rig.dialogs:
                dialog.close()
            for models in rig.models:
                models.close()
            os.environ.pop("PYTHONPATH", None)
