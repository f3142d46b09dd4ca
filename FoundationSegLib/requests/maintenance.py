"""Requests about what a computer has for the models: its packages and its checkpoints. Standard library alone.

Each has a ``request_id``, a number that the answer repeats; the caller makes it unique among the requests of a client.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """Look up which of some packages a Python has; with ``devices`` also what PyTorch can compute on there (seconds).

    Answered by a :class:`~FoundationSegLib.installation.inspection.PythonReport`.
    """

    request_id: int
    packages: tuple[str, ...]
    devices: bool = False


@dataclass(frozen=True, slots=True)
class PlanPackagesRequest:
    """Find out what pip would install for some requirements; nothing is installed.

    Answered by a :class:`~FoundationSegLib.installation.packages.PackagePlan`.
    """

    request_id: int
    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstallPackagesRequest:
    """Have pip install some requirements, unless that would replace a package that has to stay.

    ``from_elsewhere`` names packages that pip must not install, since they have another source.
    Answered by the :class:`~FoundationSegLib.installation.packages.PackagePlan` that was carried out.
    """

    request_id: int
    requirements: tuple[str, ...]
    from_elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """Download a model's checkpoint, or what is damaged of it; one that is whole is left alone.

    ``model_id`` is the model's card; ``accept_license``: the user accepts the model's terms now. Answered by None.
    """

    request_id: int
    model_id: str
    accept_license: bool = False


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """Bring a model's checkpoint in from ``source``, a folder or an archive. Answered by None."""

    request_id: int
    model_id: str
    source: Path
    accept_license: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Remove everything that the store has of some models. Answered by :class:`RemovedCheckpoints`."""

    request_id: int
    model_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemovedCheckpoints:
    """The room on the disk that removing checkpoints has freed, in bytes."""

    bytes_freed: int
