"""Where each system keeps what belongs to its user."""

import os
import sys
from pathlib import Path
from typing import Literal

Kind = Literal["cache", "config"]

# By system: the variable that names the folder, if there is one, and where it is below the user's home otherwise.
_WINDOWS = {"cache": ("LOCALAPPDATA", "AppData/Local"), "config": ("APPDATA", "AppData/Roaming")}
_MACOS = {"cache": ("", "Library/Caches"), "config": ("", "Library/Application Support")}
_OTHERS = {"cache": ("XDG_CACHE_HOME", ".cache"), "config": ("XDG_CONFIG_HOME", ".config")}


def user_folder(kind: Kind, chosen_by: str, below: str) -> Path:
    """A folder of ours, whether it exists or not.

    Args:
        kind: ``"cache"`` may be deleted at any time, ``"config"`` is the user's own.
        chosen_by: the variable of ours that names another folder.
        below: the path of ours below the system's folder, with forward slashes.
    """
    chosen = os.environ.get(chosen_by)
    if chosen:
        return Path(chosen).expanduser()
    variable, usual = {"win32": _WINDOWS, "darwin": _MACOS}.get(sys.platform, _OTHERS)[kind]
    return Path(os.environ.get(variable) or Path.home() / usual) / below
