"""Whether there is a login for the Hub: looked for where its client keeps it, without importing the client."""

import os
from collections.abc import Mapping
from pathlib import Path


def has_login(inherited: Mapping[str, str] | None = None) -> bool:
    """True where a token would go with a request. What it is, and whether it is any good, nobody looks at.

    Args:
        inherited: the environment of the worker; this process's own, unless given.

    Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    told = os.environ if inherited is None else inherited
    if told.get("HF_TOKEN") or told.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    cache = Path(told.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(told.get("HF_HOME") or cache / "huggingface").expanduser()
    path = Path(told.get("HF_TOKEN_PATH") or home / "token").expanduser()
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
