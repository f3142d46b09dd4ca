"""Requests about what a computer has for the models, and the settings of a worker process. Standard library alone.

Each has a ``request_id``, a number that the answer repeats; the caller makes it unique among the requests of a client.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from ..codec import frozen
from ..folders import PACKAGES_VARIABLE, chosen_folder

DeviceChoice = Literal["auto", "cuda", "mps", "cpu"]

# How a 3-D box is followed from slice to slice. "official": from the middle slice as it is stored, the box around the
# neighbour's mask, wherever that leads (CVPR24_LiteMedSAM_infer.py). "surest": from several slices, turned the way a
# radiologist sees them, with boxes cut to the prompt; each slice keeps the answer that the model is surest of.
BoxRule = Literal["surest", "official"]


@frozen
class MemoryBudget:
    """Memory that an engine may keep, in bytes. The part unused the longest goes first; the newest stays in any case.

    A LiteMedSAM embedding takes 4 MB: half a gigabyte is a chest CT of 128 slices, wholly encoded. ``limit`` is what
    the worker is to take in all, on the host and on the device each; None for as much as there is.
    """

    volumes: int = 2 * 2**30
    embeddings: int = 512 * 2**20
    models: int = 6 * 2**30
    limit: int | None = None

    def within_limit(self) -> "MemoryBudget":
        """The same with nothing above the limit."""
        if self.limit is None:
            return self
        amounts = (min(amount, self.limit) for amount in (self.volumes, self.embeddings, self.models))
        return MemoryBudget(*amounts, self.limit)

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.volumes + self.embeddings + self.models

    @staticmethod
    def within(total: int) -> "MemoryBudget":
        """A budget of so many bytes, shared out as the usual one is."""
        usual = MemoryBudget()
        return MemoryBudget(*(part * total // usual.total for part in (usual.volumes, usual.embeddings, usual.models)))


@frozen
class WorkerSettings:
    """Settings that a worker process starts with.

    Attributes:
        device: what to compute on.
        store_folder: the folder of the checkpoints; None is the user's usual folder.
        box_rule: how 3-D boxes are followed; see :data:`BoxRule`.
        encode_ahead: while idle, encode the slices next to the last prompt.
        budget: memory.
        packages_folder: the folder with private packages for each kind of Python, see
            :mod:`FoundationSegLib.installation.private_environment`; None for those of the Python itself. Commands and
            scripts take it from ``FOUNDATIONSEG_PACKAGES``.
        wheels_folder: a folder of wheels to install from, without any index; None for the indexes.
    """

    device: DeviceChoice = "auto"
    store_folder: Path | None = None
    box_rule: BoxRule = "surest"
    encode_ahead: bool = True
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    packages_folder: Path | None = field(default_factory=lambda: chosen_folder(PACKAGES_VARIABLE))
    wheels_folder: Path | None = None


@frozen
class InspectRequest:
    """Look up which of some packages a Python has; with ``devices`` also what PyTorch can compute on there (seconds).

    Answered by a :class:`~FoundationSegLib.installation.inspection.PythonReport`.
    """

    request_id: int
    packages: tuple[str, ...]
    devices: bool = False


@frozen
class PlanPackagesRequest:
    """Find out what pip would install for some requirements; nothing is installed.

    Answered by a :class:`~FoundationSegLib.installation.packages.PackagePlan`.
    """

    request_id: int
    requirements: tuple[str, ...]


@frozen
class InstallPackagesRequest:
    """Have pip install some requirements, unless that would replace a package that has to stay.

    Into a private folder also what is missing or broken of earlier ones: without any requirement, it is repaired.

    ``from_elsewhere`` names packages that pip must not install, since they have another source.
    Answered by the :class:`~FoundationSegLib.installation.packages.PackagePlan` that was carried out.
    """

    request_id: int
    requirements: tuple[str, ...]
    from_elsewhere: tuple[str, ...] = ()


@frozen
class DownloadRequest:
    """Download a model's checkpoint, or what is damaged of it; one that is whole is left alone.

    ``model_id`` is the model's card; ``accept_license``: the user accepts the model's terms now. Answered by None.
    """

    request_id: int
    model_id: str
    accept_license: bool = False


@frozen
class ImportRequest:
    """Bring a model's checkpoint in from ``source``, a folder or an archive. Answered by None."""

    request_id: int
    model_id: str
    source: Path
    accept_license: bool = False


@frozen
class RemoveRequest:
    """Remove everything that the store has of some models. Answered by :class:`RemovedCheckpoints`."""

    request_id: int
    model_ids: tuple[str, ...]


@frozen
class RemovePackagesRequest:
    """Remove the private packages of this kind of Python. Answered by :class:`RemovedCheckpoints`."""

    request_id: int


@frozen
class RemovedCheckpoints:
    """The room on the disk that removing checkpoints or packages has freed, in bytes."""

    bytes_freed: int
