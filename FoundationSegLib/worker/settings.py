"""How a worker is started: which Python, which device, how much memory, and how long to wait for what."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.requests import BoxRule, DeviceChoice, MemoryBudget


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is told when it starts.

    Attributes:
        device: what to compute on.
        store_folder: where the checkpoints are; None is the user's usual folder.
        box_rule: how 3-D boxes are followed; see :data:`~FoundationSegLib.core.requests.BoxRule`.
        encode_ahead: while idle, encode the slices next to the last prompt.
        budget: memory.
    """

    device: DeviceChoice = "auto"
    store_folder: Path | None = None
    box_rule: BoxRule = "surest"
    encode_ahead: bool = True
    budget: MemoryBudget = field(default_factory=MemoryBudget)

    def to_document(self) -> dict[str, Any]:
        """As JSON values."""
        folder = None if self.store_folder is None else str(self.store_folder)
        return asdict(self) | {"store_folder": folder}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> "WorkerSettings":
        """The settings of :meth:`to_document`."""
        folder = document["store_folder"]
        return WorkerSettings(
            document["device"],
            None if folder is None else Path(folder),
            document["box_rule"],
            document["encode_ahead"],
            MemoryBudget(**document["budget"]),
        )


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, before a worker counts as lost.

    Attributes:
        start_s: from the start of the process to its first word; a virus scanner may read all of Python first.
        silence_s: without a sign of life while it works; importing torch from a cold disk is one long silence.
        stall_s: without any progress on a request.
        cancel_s: from cancelling to the end of the computation.
        supersede_s: from a newer request to the end of the computation of the older one.
        stop_s: from being told to end to the end of the process.
    """

    start_s: float = 60.0
    silence_s: float = 120.0
    stall_s: float = 900.0
    cancel_s: float = 2.0
    supersede_s: float = 30.0
    stop_s: float = 1.0


def worker_command(python: Path | str = "", module: str = "main") -> tuple[str, ...]:
    """The command that starts a worker with a given Python, or with the running one; in Slicer that is PythonSlicer.

    ``module``: what it runs, ``"errand_main"`` for an errand (:mod:`.errand`).


    Some builds of Slicer do not know their own Python's path: there PythonSlicer is looked for, as a command.
    ``-P``: modules are not looked for in the working folder.
    """
    found = str(python) or sys.executable or shutil.which("PythonSlicer") or "PythonSlicer"
    return found, "-P", "-m", f"{__package__}.{module}"
