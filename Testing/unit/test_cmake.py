"""CMake, with Slicer's own macros, configures, builds, tests, installs and packages the project.

It needs CMake 3.28, and SLICER_SOURCE and CTK_SOURCE naming checkouts of Slicer/Slicer and commontk/CTK. With
SLICER_EXECUTABLE too, what was built is run in that Slicer. What is installed is checked without all this in
``test_cmake_lists.py``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from Testing.unit.cmake_lists import commands, read_project
from Testing.unit.installed_tree import MODULES, check_installed_tree, places
from Testing.unit.project_files import ROOT, copy_of_project

STAND_IN = ROOT / "Testing" / "slicer_package"
CMAKE_NEEDED = (3, 28)


class Build:
    """The project, configured against the stand-in for a built Slicer."""

    def __init__(self, folder: Path, cmake: str) -> None:
        self.source = copy_of_project(folder / "source")
        self.folder = folder / "build"
        self._cmake = Path(cmake)

    def run(self, tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run cmake, ctest or cpack in the build folder."""
        self.folder.mkdir(exist_ok=True)
        command = (str(self._cmake.with_name(tool + self._cmake.suffix)), *map(str, arguments))
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=600)

    def configure(self) -> subprocess.CompletedProcess[str]:
        """Configure, with the tests on."""
        settings = {
            "Slicer_DIR": STAND_IN,
            "SLICER_SOURCE": os.environ["SLICER_SOURCE"],
            "CTK_SOURCE": os.environ["CTK_SOURCE"],
            "SLICER_EXECUTABLE": os.environ.get("SLICER_EXECUTABLE", sys.executable),
            "PYTHON_EXECUTABLE": sys.executable,
            "BUILD_TESTING": "ON",
        }
        return self.run("cmake", "-Wno-dev", *(f"-D{name}={value}" for name, value in settings.items()), self.source)


def find_cmake() -> str:
    """A CMake that is new enough, from the path or from the package of that name."""
    found = shutil.which("cmake")
    try:
        from cmake import CMAKE_BIN_DIR
    except ImportError:
        pass
    else:
        found = shutil.which("cmake", path=CMAKE_BIN_DIR)
    if not found:
        pytest.skip("no CMake")
    version = re.search(r"(\d+)\.(\d+)", subprocess.run((found, "--version"), capture_output=True, text=True).stdout)
    if tuple(map(int, version.groups())) < CMAKE_NEEDED:
        pytest.skip(f"CMake {version[0]} is too old; Slicer 5.12 asks for 3.28")
    return found


@pytest.fixture
def build(tmp_path: Path) -> Build:
    for name, file in (("SLICER_SOURCE", "CMake/UseSlicer.cmake.in"), ("CTK_SOURCE", "CMake")):
        if not os.environ.get(name):
            pytest.skip(f"{name} names no checkout")
        assert Path(os.environ[name], file).exists(), f"{name} names a folder without {file}"
    if not shutil.which("cc"):
        pytest.skip("no C compiler, which CMake asks for in every project")
    (tmp_path / "source").mkdir()
    return Build(tmp_path, find_cmake())


def test_slicers_macros_configure_build_install_and_package_it(build, tmp_path):
    configured = build.configure()
    assert configured.returncode == 0, configured.stderr
    built = build.run("cmake", "--build", ".", "--parallel", 2)
    assert built.returncode == 0, built.stdout + built.stderr
    assert build.run("cmake", "--install", ".", "--prefix", tmp_path / "installed").returncode == 0
    modules = tmp_path / "installed" / MODULES
    installed = {path.relative_to(modules).as_posix() for path in modules.rglob("*") if path.is_file()}
    wanted = places(ROOT).keys()
    assert {name for name in installed if not name.endswith(".pyc")} == wanted
    assert {name for name in installed if name.endswith(".pyc")} == {f"{n}c" for n in wanted if n.endswith(".py")}
    check_installed_tree(modules)

    packed = build.run("cpack")
    assert packed.returncode == 0, packed.stdout + packed.stderr
    (package,) = build.folder.glob("*-FoundationSeg-git*.tar.gz")
    with tarfile.open(package) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"{MODULES.as_posix()}/{name}" for name in wanted} <= names
    assert "share/Slicer-5.12/FoundationSeg.s4ext" in names


def test_slicers_description_of_it_is_whole(build):
    assert build.configure().returncode == 0
    lines = (build.folder / "FoundationSeg.s4ext").read_text(encoding="utf-8").splitlines()
    said = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("#"))
    values = read_project(ROOT).variables
    for key in (
        "homepage",
        "category",
        "contributors",
        "description",
        "iconurl",
        "screenshoturls",
        "depends",
        "keywords",
    ):
        assert said[key] == values[f"EXTENSION_{key.upper()}"], key
    assert said["scmurl"] == json.loads((ROOT / "Resources" / "FoundationSeg.json").read_text())["scm_url"]


def test_the_tests_run_in_slicer(build):
    assert build.configure().returncode == 0
    listing = build.run("ctest", "--show-only=json-v1").stdout
    tests = {test["name"]: test["command"] for test in json.loads(listing)["tests"]}
    own = {"py_FoundationSeg", "py_FoundationSegTutorialTest"}
    assert tests.keys() == {"py_nomainwindow_qSlicerFoundationSegModuleGenericTest", *own}
    assert all(str(build.folder / MODULES) in command for command in tests.values())
    if not os.environ.get("SLICER_EXECUTABLE"):
        pytest.skip("the tests are there; SLICER_EXECUTABLE names no Slicer to run them in")
    assert build.run("cmake", "--build", ".", "--parallel", 2).returncode == 0
    ran = build.run("ctest", "--output-on-failure")
    assert ran.returncode == 0, ran.stdout


def test_the_lists_ask_for_the_cmake_that_is_looked_for():
    minimum = dict(commands((ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))["cmake_minimum_required"][1]
    assert minimum.startswith(f"{CMAKE_NEEDED[0]}.{CMAKE_NEEDED[1]}.")
