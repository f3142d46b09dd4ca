import sys
from pathlib import Path

import pytest

from FoundationSegLib.folders import user_folder


@pytest.mark.parametrize(
    ("system", "kind", "usual", "variable"),
    [
        ("win32", "cache", "AppData/Local", "LOCALAPPDATA"),
        ("win32", "config", "AppData/Roaming", "APPDATA"),
        ("darwin", "cache", "Library/Caches", ""),
        ("darwin", "config", "Library/Application Support", ""),
        ("linux", "cache", ".cache", "XDG_CACHE_HOME"),
        ("freebsd14", "config", ".config", "XDG_CONFIG_HOME"),
    ],
)
def test_each_system_has_its_place(monkeypatch, tmp_path, system, kind, usual, variable):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("LOCALAPPDATA", "APPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OURS"):
        monkeypatch.delenv(name, raising=False)
    assert user_folder(kind, "OURS", "FoundationSeg/cards") == tmp_path / usual / "FoundationSeg" / "cards"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "moved"))
        assert user_folder(kind, "OURS", "FoundationSeg") == tmp_path / "moved" / "FoundationSeg"
    monkeypatch.setenv("OURS", str(tmp_path / "chosen"))
    assert user_folder(kind, "OURS", "FoundationSeg") == tmp_path / "chosen"
