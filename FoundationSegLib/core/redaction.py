"""Texts that may be shown to strangers: without the folders and the name of whoever works at this computer."""

import getpass
import re
from pathlib import Path

_SHORTEST_NAME = 3  # a name of two letters is part of too many words
# Folders of either kind of system; what follows the last slash tells something, and stays. A blank belongs to a name
# only where that is clear: on a drive of Windows.
_FOLDERS = re.compile(
    r"\S*://\S*"
    r"|[A-Za-z]:\\+(?:[^\\/:*?\"<>|\r\n']+\\+)+"
    r"|(?<![\w.])(?:~|[A-Za-z]:|\\)?(?:[\\/][^\\/\s'\":;,<>|()\[\]]+)+[\\/](?=[^\\/\s])"
)


def without_paths(text: str) -> str:
    """A text in which the user's home, folders of files and the user's name are replaced; addresses stay."""
    home = str(Path.home())
    for spelling in {home, home.replace("\\", "/"), home.replace("\\", "\\\\")}:
        if len(spelling) > 1:
            text = text.replace(spelling, "~")
    text = _FOLDERS.sub(_shortened, text)
    name = _user_name()
    if len(name) >= _SHORTEST_NAME:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(user)", text, flags=re.IGNORECASE)
    return text


def _shortened(found: "re.Match[str]") -> str:
    if "://" not in found[0]:
        return "…/"
    is_file = found[0].lower().startswith("file:")
    return f"…/{found[0].rpartition('/')[2]}" if is_file else found[0]


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such variable, no entry for the user, no such module (Windows)
        return ""
