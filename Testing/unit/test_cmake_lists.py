"""CMakeLists.txt, read as text: every file of the project is installed, and finds the others in its place."""

import shutil
from pathlib import Path

import pytest

from Testing.unit.cmake_lists import read_project
from Testing.unit.installed_tree import MODULES, check_installed_tree, misplaced
from Testing.unit.project_files import ROOT, copy_of_project, spoilt


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy that files are added to for a while."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


def test_every_file_is_installed_where_it_belongs():
    assert misplaced(ROOT) == []


def test_the_module_gets_slicers_generic_tests_and_its_own():
    *tests, tutorial = read_project(ROOT).tests
    assert tests == ["FoundationSeg", "FoundationSeg.py"]
    assert Path(tutorial).is_file() and Path(tutorial).name == "FoundationSegTutorialTest.py"


@pytest.mark.parametrize(
    "name",
    [
        "FoundationSeg/FoundationSegPanel/extra.py",
        "FoundationSeg/FoundationSegPanel/more/extra.py",
        "FoundationSeg/Resources/UI/Extra.ui",
        "FoundationSeg/Resources/Icons/Extra.png",
        "FoundationSegLib/novel/extra.py",
        "Resources/LabelSets/extra.toml",
    ],
)
def test_a_new_file_of_a_known_kind_is_installed(project, name):
    with spoilt(project / name, b""):
        assert misplaced(project) == []
        assert project / name in read_project(project).installed.values()


def test_the_installed_tree_works_by_itself(tmp_path):
    modules = tmp_path / MODULES
    for place, path in read_project(ROOT).installed.items():
        (modules / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, modules / place)
    check_installed_tree(modules)
