"""Slicer's package installer, as far as it decides something; the desk stands in for pip itself."""

import importlib.metadata
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement


def load_requirements(path: str | Path) -> list[Requirement]:
    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(req: Any) -> bool:
    """True if what is installed satisfies the requirements; extras are not looked at."""
    return all(_is_installed(one) for one in _as_list(req))


def pip_ensure(
    requirements: Any,
    constraints: Any = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Ask, then install what is missing.

    Raises:
        RuntimeError: the user said no.
    """
    if skip_in_testing and slicer.app.testingEnabled():
        return None
    missing = [str(one) for one in _as_list(requirements) if not _is_installed(one)]
    if not missing:
        return None
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
        f"{requester or 'This'} needs: {', '.join(missing)}", "Install Python packages?"
    ):
        raise RuntimeError("User declined to install")
    return slicer.packaging.pip_install(missing, constraints, None, skip_packages, True, show_progress, requester)


def isPipInstallInProgress() -> bool:
    return False


def _as_list(requirements: Any) -> list[Requirement]:
    if isinstance(requirements, str):
        requirements = requirements.split()
    if isinstance(requirements, Requirement):
        requirements = [requirements]
    return [one if isinstance(one, Requirement) else Requirement(one) for one in requirements]


def _is_installed(one: Requirement) -> bool:
    if one.marker is not None and not one.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(one.name) in one.specifier
    except importlib.metadata.PackageNotFoundError:
        return False
