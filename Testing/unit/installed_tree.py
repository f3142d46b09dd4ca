"""Where each file of the project belongs in Slicer's folder for scripted modules, and whether it works there."""

import json
import os
import subprocess
import sys
from pathlib import Path

from FoundationSegLib.catalog.catalogue import read_catalogue
from Testing.unit.cmake_lists import read_project
from Testing.unit.project_files import project_files

MODULES = Path("lib", "Slicer-5.12", "qt-scripted-modules")


def places(root: Path) -> dict[str, str]:
    """Which file of the project belongs at which place below Slicer's scripted modules."""
    found = {"FoundationSegLib/LICENSE": "LICENSE"}
    for name in project_files(root):
        if name.startswith(("FoundationSeg/", "FoundationSegLib/", "Resources/")) and not stays_behind(name):
            found[name.removeprefix("FoundationSeg/")] = name
    return found


def stays_behind(name: str) -> bool:
    """True for what has no business in the package."""
    return name.endswith("CMakeLists.txt") or name.startswith(
        ("Resources/FoundationSeg.json", "Resources/Screenshots/", "Resources/Documentation/")
    )


def misplaced(root: Path) -> list[str]:
    """Files of the project that would not be installed where they belong, and files that would be by mistake."""
    found = {place: path.relative_to(root).as_posix() for place, path in read_project(root).installed.items()}
    return [f"{place}: {name}" for place, name in sorted(places(root).items() ^ found.items())]


def check_installed_tree(modules: Path) -> None:
    """The library starts out of its installed place, in a Python that sees nothing else of the project."""
    environment = {**os.environ, "PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}
    listing = subprocess.run(
        (sys.executable, "-m", "FoundationSegLib", "models", "list", "--json"),
        cwd=modules.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert listing.returncode == 0, listing.stderr
    assert {row["id"] for row in json.loads(listing.stdout)} == set(read_catalogue())
    code = """
import FoundationSegLib
from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.mrml import terminology
from FoundationSegLib.worker import process_client, server
print(FoundationSegLib.__file__, terminology._TABLE.is_file())
"""
    run = subprocess.run(
        (sys.executable, "-c", code), cwd=modules.parent, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(modules / "FoundationSegLib" / "__init__.py"), "True"]
