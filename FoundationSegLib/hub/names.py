"""Names that come from cards, archives and the Hub: none of them may lead out of the store."""

import re
from pathlib import Path

from ..core.errors import CheckpointError

_MAX_COMPONENT = 200  # file systems allow 255 bytes; what a download adds to a name must fit too
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
# Windows takes these for devices, with any ending: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def folder_name(text: str) -> str:
    """A text as the name of one folder: letters, digits, dots, dashes and pluses stay, all else becomes ``_``."""
    name = _UNSAFE.sub("_", text)[:_MAX_COMPONENT].rstrip(".")
    return f"_{name}" if not name or name.startswith(".") or _RESERVED.fullmatch(name) else name


def is_safe_path(path: str) -> bool:
    """True for a relative path with forward slashes that means the same file on every system, below any folder."""
    parts = path.split("/")
    return not _FORBIDDEN.search(path) and all(_is_safe_part(part) for part in parts)


def _is_safe_part(part: str) -> bool:
    ends_well = bool(part.strip()) and not part.startswith(" ") and not part.endswith((" ", "."))
    return ends_well and len(part.encode("utf-8", "replace")) <= _MAX_COMPONENT and not _RESERVED.fullmatch(part)


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
