"""PyTorch inside Slicer: through the extension that chooses the build which fits the computer, and nothing else.

Every other package is installed by pip in a process of its own, :mod:`FoundationSegLib.worker.server`, which can
be watched and stopped.
"""

import subprocess
from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import PackageError
from ..installation.packages import FROM_EXTENSION, canonical, requirement_name


class TorchLogic(Protocol):
    """The part of the PyTorch extension's ``PyTorchUtilsLogic`` that is used here."""

    def installTorch(self, askConfirmation: bool = False, **requirements: Any) -> Any:
        """Install PyTorch and return it; None where that did not happen."""
        ...


def find_torch_logic() -> TorchLogic:
    """The logic of the PyTorch extension's module.

    Raises:
        PackageError: the extension is not installed.
    """
    try:
        import PyTorchUtils
    except ImportError as error:
        hint = "install the extension 'PyTorch' with Slicer's Extensions Manager first, and restart"
        raise PackageError(hint) from error
    logic: TorchLogic = PyTorchUtils.PyTorchUtilsLogic()
    return logic


def install_torch(logic: TorchLogic, requirements: Sequence[str]) -> None:
    """Have the PyTorch extension install PyTorch; the user has agreed before. For the main thread, which it blocks.

    Args:
        logic: :func:`find_torch_logic`.
        requirements: what the model asks for; that of ``torch`` is passed on.

    Raises:
        PackageError: it was not installed.
    """
    wanted = {canonical(requirement_name(text)): text for text in requirements}
    ranges = {f"{name}VersionRequirement": wanted[name][len(name) :] for name in FROM_EXTENSION if name in wanted}
    try:
        is_installed = logic.installTorch(askConfirmation=False, **ranges) is not None
    except (RuntimeError, OSError, ImportError, ValueError, subprocess.SubprocessError) as error:
        raise PackageError("PyTorch could not be installed; Slicer's Python console says why") from error
    if not is_installed:
        raise PackageError("PyTorch was not installed; Slicer's Python console says why")
