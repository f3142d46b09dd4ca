"""Names that others give us (in cards, on the Hub) and that become files and folders here: which are harmless."""

import re

# What Windows keeps for devices, whatever the ending (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])( *\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\/')
_LONGEST_NAME = 128
# Windows' limit for a whole path is 260 without special settings; the store's own folders need their share.
_LONGEST_PATH = 180

_HUB_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_PYPI_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST_REPOSITORY = 96  # huggingface_hub.utils.validate_repo_id, for the whole of owner/name


def is_safe_name(name: str) -> bool:
    """True for the name of one file or folder that means the same on Linux, macOS and Windows.

    ASCII without control characters, separators and wildcards; no ``.`` or ``..``, no space at the start, no space or
    dot at the end, and nothing that Windows takes for a device.
    """
    return (
        0 < len(name) <= _LONGEST_NAME
        and name.isascii()
        and name.isprintable()
        and not _FORBIDDEN & set(name)
        and not name.startswith(" ")
        and not name.endswith((" ", "."))
        and not _RESERVED.fullmatch(name)
    )


def is_safe_path(path: str) -> bool:
    """True for a relative path with forward slashes, every part of which is a safe name: it stays in its folder."""
    return len(path) <= _LONGEST_PATH and all(is_safe_name(part) for part in path.split("/"))


def is_hub_repository(name: str) -> bool:
    """True for ``owner/name`` as the Hugging Face Hub spells repositories."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and len(name) <= _LONGEST_REPOSITORY
        and all(_HUB_PART.fullmatch(part) and is_safe_name(part) for part in parts)
        and "--" not in name
        and ".." not in name
        and not name.lower().endswith(".git")
    )


def is_pypi_name(name: str) -> bool:
    """True for a project's name on the Python Package Index."""
    return bool(_PYPI_NAME.fullmatch(name)) and is_safe_name(name)
