"""Names that come from cards, archives and the Hub: none of them may lead out of the store."""

import re
from pathlib import Path

from ..core.errors import CheckpointError
from ..core.names import is_safe_name, is_safe_path

_MAX_COMPONENT = 120  # file systems allow 255 bytes; what a download adds to a name must fit too
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


def folder_name(text: str) -> str:
    """A text as the name of one folder: letters, digits, dots, dashes and pluses stay, all else becomes ``_``."""
    name = _UNSAFE.sub("_", text)[:_MAX_COMPONENT].rstrip(".")
    return name if is_safe_name(name) and not name.startswith(".") else f"_{name}"


def safe_path(path: str) -> str:
    """The path itself.

    Raises:
        CheckpointError: it could lead out of its folder, or means something else on another system.
    """
    if not is_safe_path(path):
        raise CheckpointError(f"the file name {path[:80]!r} is not one that a checkpoint may have")
    return path


def require_inside(folder: Path, path: Path) -> None:
    """Make sure that no link between a folder and a path below it leads elsewhere.

    Raises:
        CheckpointError: one does.
    """
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"a link inside the store leads out of it, near {path.parent.name}; remove it")
