"""The earlier place of :mod:`FoundationSegLib.api`: its names are found here for one more version."""

import warnings
from typing import Any

from . import api

_NAMES = {
    "choose": "choose",
    "choose_labels": "choose_labels",
    "classify_volume": "classify",
    "open_session": "open_session",
    "segment_volumes": "segment_volumes",
}


def __getattr__(name: str) -> Any:
    """Return the object of `api` in the place of an earlier one."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    text = f"FoundationSegLib.scripting.{name} is FoundationSegLib.api.{_NAMES[name]} from now on"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(api, _NAMES[name])
