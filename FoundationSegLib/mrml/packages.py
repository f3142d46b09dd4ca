"""Extra Python packages inside Slicer: through Slicer's own installer, and torch through the PyTorch extension."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import PackageError
from ..core.packages import PackageTool, PipTool, canonical, constraints_file, requirement_name
from ..core.progress import Progress

_TORCH = {"torch", "torchvision"}


@dataclass(frozen=True, slots=True)
class SlicerTool:
    """Slicer as a :class:`~FoundationSegLib.core.packages.PackageTool`; to be used in the main thread.

    Attributes:
        packaging: ``slicer.packaging``.
        torch_logic: the logic of the PyTorch extension's module; None where the extension is not installed.
        looks: what makes the plan; it only looks.
    """

    packaging: Any
    torch_logic: Any
    looks: PackageTool = field(default_factory=PipTool)

    def install_torch(self) -> None:
        """Have the PyTorch extension install torch, in the build that fits the computer, unless it is there.

        Raises:
            PackageError: the extension is missing, or the user declined.
        """
        if self.torch_logic is None:
            raise PackageError("install the extension 'PyTorch' with Slicer's Extensions Manager first, and restart")
        if not self.torch_logic.torchInstalled() and self.torch_logic.installTorch(askConfirmation=True) is None:
            raise PackageError("PyTorch was not installed")

    def report(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> Any:
        """What would be installed beside torch.

        Raises:
            PackageError: torch is wanted and not there yet; without it, pip would bring one of its own choice.
        """
        wanted = _without_torch(requirements)
        if len(wanted) < len(requirements) and not any(line.startswith("torch==") for line in constraints):
            raise PackageError("PyTorch has to be installed first, by the extension 'PyTorch'")
        return self.looks.report(wanted, constraints, progress)

    def install(self, requirements: Sequence[str], constraints: Sequence[str], progress: Progress) -> None:
        """Install everything but torch.

        Raises:
            PackageError: Slicer's installer fails.
        """
        progress.check()
        with constraints_file(constraints) as path:
            try:
                wanted = _without_torch(requirements)
                self.packaging.pip_install(wanted, constraints=str(path), requester="FoundationSeg")
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                raise PackageError("Slicer could not install the packages; its Python console says why") from error


def _without_torch(requirements: Sequence[str]) -> list[str]:
    return [text for text in requirements if canonical(requirement_name(text)) not in _TORCH]
