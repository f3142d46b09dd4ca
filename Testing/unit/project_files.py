"""The files of this project, and a copy of them to spoil."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def project_files(root: Path) -> list[str]:
    """Every file of the project: tracked, or new and not ignored."""
    listing = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=root,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return [name for name in listing.stdout.split("\0") if name and (root / name).is_file()]


def copy_of_project(folder: Path) -> Path:
    """A checkout of the project as it stands now, with the address that the index knows."""
    for name in project_files(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    entry = json.loads((ROOT / "Resources" / "FoundationSeg.json").read_text(encoding="utf-8"))
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (
        ("init", "--quiet"),
        ("remote", "add", "origin", entry["scm_url"]),
        ("add", "--all"),
        (*author, "commit", "--quiet", "--no-verify", "--message", "As it stands"),
    ):
        subprocess.run(("git", *command), cwd=folder, check=True)
    return folder


@contextmanager
def spoilt(path: Path, content: bytes | None) -> Iterator[None]:
    """Have other content in a file, or no such file, for a while."""
    before = path.read_bytes() if path.exists() else None
    try:
        _write(path, content)
        yield
    finally:
        _write(path, before)


def _write(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
