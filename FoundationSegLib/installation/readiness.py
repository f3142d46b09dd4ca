"""Readiness: what stands between a user and a model, and the next step to take."""

from collections.abc import Sequence
from typing import Literal

from ..catalog.catalogue import has_adapter
from ..catalog.model_cards import ModelCard
from ..codec import frozen
from ..requests.maintenance import DeviceChoice
from .inspection import OLDEST_PYTHON, Device, PythonReport
from .packages import FROM_EXTENSION, canonical, missing_packages, requirement_name, requirements_of

# In the order in which a user has to deal with them. "adapter": this version cannot run the family. "python": the
# chosen Python is too old. "native": on a Mac, it is for Intel processors. "packages": some are missing there.
# "license": terms to accept. "gate": the Hub wants a
# login. "room": the disk is too full. "weights": to download. "memory": the device may have too little; only a warning.
Need = Literal["adapter", "python", "native", "packages", "license", "gate", "room", "weights", "memory"]


@frozen
class MissingRequirement:
    """Something that is missing.

    Attributes:
        need: what.
        bytes: how much of it; 0 where nobody knows or it has no size.
        items: for packages, the requirements; for weights, ``"partial"`` or ``"damaged"`` where something is there;
            for memory, the device.
    """

    need: Need
    bytes: int = 0
    items: tuple[str, ...] = ()


@frozen
class Stored:
    """State of a model in the store.

    Attributes:
        status: ``"absent"``, ``"partial"``, ``"ready"`` or ``"damaged"``.
        bytes_here: what lies there, half files included.
        free_bytes: the room on the store's disk.
        must_accept: its terms have to be accepted; ``is_accepted`` where they were.
        has_login: there is a token for the Hub.
    """

    status: str
    bytes_here: int
    free_bytes: int
    must_accept: bool
    is_accepted: bool
    has_login: bool


@frozen
class Readiness:
    """Readiness of a model, and all that is still missing.

    Attributes:
        model_id: the card's id.
        missing: what is missing, in the order in which to deal with it.
    """

    model_id: str
    missing: tuple[MissingRequirement, ...]

    @property
    def is_ready(self) -> bool:
        """True where the model can be used; it may still want more memory than there seems to be."""
        return all(requirement.need == "memory" for requirement in self.missing)

    @property
    def is_possible(self) -> bool:
        """False where nothing that could be installed or downloaded would help."""
        return not any(requirement.need == "adapter" for requirement in self.missing)

    def requirement(self, need: Need) -> MissingRequirement | None:
        """The missing requirement of a kind, or None."""
        return next((requirement for requirement in self.missing if requirement.need == need), None)

    @property
    def missing_packages(self) -> tuple[str, ...]:
        """The requirements that are not fulfilled."""
        requirement = self.requirement("packages")
        return requirement.items if requirement else ()


def assess(card: ModelCard, python: PythonReport | None, stored: Stored, choice: DeviceChoice = "auto") -> Readiness:
    """Assess what is missing before a model can be used.

    Args:
        card: the model.
        python: the worker's Python; None where it was not asked yet, and nothing is said of it then.
        stored: what the store knows of the model.
        choice: what the worker is told to compute on.
    """
    missing: list[MissingRequirement] = []
    if not has_adapter(card):
        missing.append(MissingRequirement("adapter"))
    to_download = stored.status != "ready"
    if python is not None:
        missing += _of_python(card, python, to_download=to_download)
    if to_download:
        missing += _of_download(card, stored)
    if python is not None and python.devices is not None:
        missing += _of_memory(card, python.devices.devices, choice)
    return Readiness(card.id, tuple(missing))


def _of_python(card: ModelCard, python: PythonReport, *, to_download: bool) -> list[MissingRequirement]:
    missing = []
    if tuple(int(part) for part in python.version.split(".")[:2]) < OLDEST_PYTHON:
        missing.append(MissingRequirement("python", items=(python.version,)))
    if python.system.startswith("macOS") and python.system.endswith("(x86_64)"):
        missing.append(MissingRequirement("native"))  # PyTorch 2.2 was the last for such a Python
    required = requirements_of(card, to_download=to_download)
    if packages := missing_packages(required, lambda name: python.packages.get(name, "")):
        missing.append(MissingRequirement("packages", items=tuple(packages)))
    return missing


def _of_download(card: ModelCard, stored: Stored) -> list[MissingRequirement]:
    missing = []
    if stored.must_accept and not stored.is_accepted:
        missing.append(MissingRequirement("license"))
    if card.gated and not stored.has_login:
        missing.append(MissingRequirement("gate"))
    to_fetch = card.source.bytes
    if stored.status == "partial" and card.source.comes_in_files:
        to_fetch = max(0, to_fetch - stored.bytes_here)
    if to_fetch > stored.free_bytes:
        missing.append(MissingRequirement("room", to_fetch - stored.free_bytes))
    items = () if stored.status == "absent" else (stored.status,)
    return [*missing, MissingRequirement("weights", to_fetch, items)]


def _of_memory(card: ModelCard, devices: Sequence[Device], choice: DeviceChoice) -> list[MissingRequirement]:
    usable = [device for device in devices if choice in ("auto", device.kind)]
    device = usable[0] if usable else None
    if device is None or not device.bytes or not card.memory_mb:
        return []
    lacking = card.memory_mb.get(device.kind, 0) * 10**6 - device.bytes
    return [MissingRequirement("memory", lacking, (device.kind,))] if lacking > 0 else []


# "blocked": nothing that is installed or downloaded would help. "torch": the PyTorch extension installs PyTorch in
# Slicer's own Python. "packages": pip installs the others. "license": the terms have to be accepted. "gate": the user
# has to log in to the Hub. "weights": the checkpoint is downloaded. "done": the model is ready.
Step = Literal["blocked", "torch", "packages", "license", "gate", "weights", "done"]


def next_step(readiness: Readiness, *, is_own_python: bool, with_weights: bool = True) -> Step:
    """The next step, by what is missing now, wherever the last set-up was stopped.

    Args:
        readiness: of the model, with the worker's Python asked.
        is_own_python: models use Slicer's own packages, of which pip must not touch PyTorch.
        with_weights: the checkpoint is wanted, too.
    """
    if any(readiness.requirement(need) for need in ("adapter", "python", "native")):
        return "blocked"
    if is_own_python and lacks_torch(readiness):
        return "torch"
    if readiness.missing_packages:
        return "packages"
    if not with_weights:
        return "done"
    for need in ("room", "license", "gate", "weights"):
        if readiness.requirement(need):
            return "blocked" if need == "room" else need
    return "done"


def lacks_torch(readiness: Readiness) -> bool:
    """True where what the PyTorch extension installs is missing, or too old."""
    return any(canonical(requirement_name(text)) in FROM_EXTENSION for text in readiness.missing_packages)
