"""Label sets on disk: those that come along, and the user's own. Read from TOML, checked."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card_schema import build
from .errors import CardError, InputError
from .labels import LabelSet
from .names import is_safe_name
from .user_folders import user_folder

LABEL_SETS_VARIABLE = "FOUNDATIONSEG_LABEL_SETS"
_LARGEST_FILE = 1_000_000  # bytes


def label_set_folder() -> Path:
    """The folder of the label sets that come with FoundationSeg."""
    return Path(__file__).resolve().parents[2] / "Resources" / "LabelSets"


def user_label_set_folder() -> Path:
    """The folder of the user's own label sets, whether it exists or not.

    That is ``FoundationSeg/label-sets`` in the user's configuration directory, unless the variable
    :data:`LABEL_SETS_VARIABLE` names another.
    """
    return user_folder("config", LABEL_SETS_VARIABLE, "FoundationSeg/label-sets")


def parse_label_set(document: Mapping[str, Any], origin: str = "label set") -> LabelSet:
    """The label set of a decoded TOML document; ``origin`` is the file's name, for messages.

    Raises:
        InputError: a field is missing, unknown, or of a value that is not allowed.
    """
    try:
        return build(LabelSet, document, origin)
    except CardError as error:
        raise InputError(str(error)) from error
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def read_label_set(path: Path) -> LabelSet:
    """The label set in a TOML file, whose name must be the set's id.

    Raises:
        InputError: the file cannot be read, is no TOML, or is no label set.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path.name}: is too large for a label set")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:  # its own text has the whole path
        raise InputError(f"{path.name}: cannot be read: {error.strerror or type(error).__name__}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, endless nesting
        reason = ascii(str(error))[1:-1].split("\\n")[0][:200]
        raise InputError(f"{path.name}: cannot be read: {reason or type(error).__name__}") from error
    labels = parse_label_set(document, path.name)
    if path.stem != labels.id or not is_safe_name(labels.id):
        raise InputError(f"{path.name}: the file must be named after its id, {labels.id[:60]}.toml")
    return labels


def read_label_sets(folder: Path | None = None, own_folder: Path | None = None) -> dict[str, LabelSet]:
    """Every label set by id: those that come along in the order of their file names, then the user's own.

    A user's set takes the place of one that comes along and has the same id.

    Args:
        folder: the sets that come along; :func:`label_set_folder`, unless given.
        own_folder: the user's; :func:`user_label_set_folder` unless given, and none if ``folder`` alone is given.

    Raises:
        InputError: there is no such folder, or a set is wrong.
    """
    if folder is None and own_folder is None:
        own_folder = _existing_user_folder()
    folder = folder or label_set_folder()
    if not folder.is_dir():
        raise InputError(f"there is no folder of label sets called {folder.name}; install FoundationSeg again")
    paths = [*_files(folder), *(_files(own_folder) if own_folder else ())]
    return {labels.id: labels for labels in map(read_label_set, paths)}


def find_label_set(sets: Mapping[str, LabelSet], set_id: str) -> LabelSet:
    """The label set of an id.

    Raises:
        InputError: there is none; the message names those there are.
    """
    if set_id not in sets:
        raise InputError(f"no label set is called {set_id!r}; there are: {', '.join(sets)}")
    return sets[set_id]


def _existing_user_folder() -> Path | None:
    folder = user_label_set_folder()
    if folder.is_dir():
        return folder
    if os.environ.get(LABEL_SETS_VARIABLE):
        raise InputError(f"{LABEL_SETS_VARIABLE} names no folder: {folder.name}")
    return None


def _files(folder: Path) -> list[Path]:
    """The sets of a folder, in order; what other programs hide there (``._name.toml`` on a Mac) is none."""
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
