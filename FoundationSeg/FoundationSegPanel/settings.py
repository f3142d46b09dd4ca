"""The module's settings: what belongs to this computer and its user, not to a scene. Kept by Qt, read as a value."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.api import Installation, private_root
from FoundationSegLib.codec import frozen
from FoundationSegLib.requests.maintenance import DeviceChoice, MemoryBudget, WorkerSettings

_GROUP = "FoundationSeg"
DEVICES: tuple[DeviceChoice, ...] = ("auto", "cuda", "mps", "cpu")
LEAST_MEMORY_MB = 1024
# What belongs to Slicer's own Python, and would mislead another one.
_OF_SLICERS_PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PIP_TARGET", "PIP_PREFIX")


@frozen
class Settings:
    """Choices of the user.

    Attributes:
        worker_python: the program that runs the models; empty for Slicer's own Python.
        device: what to compute on.
        memory_mb: what the worker may keep of images, embeddings and models.
        store_folder: where the checkpoints are; empty for the user's usual folder.
        encode_ahead: while idle, the worker prepares the slices next to the last prompt.
        agent_folder: the only folder that agents may export to; empty for none.
        agents_agreed: the user has read that agents may send pictures away, and agreed.
        packages_in: ``"private"`` for packages of FoundationSeg's own, ``"python"`` for those of the Python; empty to
            have private ones with Slicer's own Python, unless that has PyTorch already.
        packages_folder: where private packages are; empty for the user's usual folder.
        wheels_folder: a folder of wheels to install from, without a network; empty for the indexes.
    """

    worker_python: str = ""
    device: DeviceChoice = "auto"
    memory_mb: int = MemoryBudget().total >> 20
    store_folder: str = ""
    encode_ahead: bool = True
    agent_folder: str = ""
    agents_agreed: bool = False
    packages_in: str = ""
    packages_folder: str = ""
    wheels_folder: str = ""

    @property
    def is_own_python(self) -> bool:
        """True where Slicer's own Python runs the models."""
        return not self.worker_python

    @property
    def packages_root(self) -> Path | None:
        """The folder with private packages; None where those of the Python are used."""
        return private_root(self.packages_in, self.packages_folder, is_running=self.is_own_python)

    @property
    def uses_extension(self) -> bool:
        """True where Slicer's own packages are used, of which its extension alone may bring PyTorch."""
        return self.is_own_python and self.packages_root is None


def _as_bool(value: Any) -> bool:
    return str(value).lower() in ("true", "1")


def _as_device(value: Any) -> DeviceChoice:
    return next((device for device in DEVICES if device == str(value)), "auto")


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "worker_python": str,
    "device": _as_device,
    "memory_mb": lambda value: max(LEAST_MEMORY_MB, int(value)),
    "store_folder": str,
    "encode_ahead": _as_bool,
    "agent_folder": str,
    "agents_agreed": _as_bool,
    **dict.fromkeys(("packages_in", "packages_folder", "wheels_folder"), str),
}


def read_settings() -> Settings:
    """The settings as they are kept; what somebody else has spoilt counts as not set."""
    kept = qt.QSettings()
    found: dict[str, Any] = {}
    for field in fields(Settings):
        key = _key(field.name)
        if kept.contains(key):
            try:
                found[field.name] = _CONVERTERS[field.name](kept.value(key))
            except (TypeError, ValueError):
                continue
    return Settings(**found)


def write_settings(settings: Settings) -> None:
    """Keep settings; one that is as usual is not kept, so that a later version may choose better."""
    kept, usual = qt.QSettings(), Settings()
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value == getattr(usual, field.name):
            kept.remove(_key(field.name))
        else:
            kept.setValue(_key(field.name), value)


def _key(name: str) -> str:
    first, *others = name.split("_")
    return f"{_GROUP}/{first}{''.join(word.capitalize() for word in others)}"


def _inherited_environment(settings: Settings) -> dict[str, str] | None:
    """The environment of the worker's process: of another Python, the environment from before Slicer's launcher.

    None for Slicer's own Python, which needs what the launcher has set.
    """
    if settings.is_own_python:
        return None
    before = dict(slicer.util.startupEnvironment()) or dict(os.environ)
    return {name: value for name, value in before.items() if name not in _OF_SLICERS_PYTHON}


def installation(settings: Settings) -> Installation:
    """Return the checkpoints and the Python that the settings name.

    The folder is always named: another Python may have another environment, and so another usual folder.
    """
    folder = Path(settings.store_folder) if settings.store_folder else None
    worker_settings = WorkerSettings(
        device=settings.device,
        store_folder=Installation(WorkerSettings(store_folder=folder)).store.folder,
        encode_ahead=settings.encode_ahead,
        budget=MemoryBudget.within(settings.memory_mb << 20),
        packages_folder=settings.packages_root,
        wheels_folder=Path(settings.wheels_folder) if settings.wheels_folder else None,
    )
    return Installation(worker_settings, settings.worker_python, _inherited_environment(settings))


def software() -> list[tuple[str, str]]:
    """Return the versions of Slicer and its Python, for a diagnosis."""
    version = f"{slicer.app.applicationVersion} ({slicer.app.revision})"
    return [("Slicer", version), (_("Python of Slicer"), sys.version.split()[0])]
