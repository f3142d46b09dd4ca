import getpass
from pathlib import Path

import pytest

from FoundationSegLib.installation import inspection as redaction
from FoundationSegLib.installation.inspection import without_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /usr/lib/x86_64/libc.so.6", "cannot open …/libc.so.6"),
        (r"DLL load failed: 'C:\Users\Jane Doe\AppData\torch.dll'", "DLL load failed: '…/torch.dll'"),
        (r"in \\server\share\people\jane\x.py", "in …/x.py"),
        ("C:/Users/jane/x.py and /home/jane/y.py", "…/x.py and …/y.py"),
        ("see https://example.org/a/b/c.html", "see https://example.org/a/b/c.html"),
        ("file:///home/jane/scan.nrrd", "…/scan.nrrd"),
        ("3/4 of it, and/or 5 mm/s", "3/4 of it, and/or 5 mm/s"),
        ("", ""),
    ],
)
def test_folders_go_and_what_tells_something_stays(text, expected, monkeypatch):
    monkeypatch.setattr(redaction, "_user_name", lambda: "")
    assert without_paths(text) == expected


def test_the_users_home_and_name_go(monkeypatch, tmp_path):
    home = tmp_path / "Jane Doe"
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    text = without_paths(f"{home / 'x' / 'y.py'} is JDOE's, not jdoes'; {home}")
    assert text == "…/y.py is (user)'s, not jdoes'; ~"
    monkeypatch.setattr(getpass, "getuser", lambda: "al")
    assert without_paths("al dente, all") == "al dente, all"


def test_a_system_that_does_not_know_its_user(monkeypatch):
    def fail():
        raise OSError("no entry")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert without_paths("root") == "root"
