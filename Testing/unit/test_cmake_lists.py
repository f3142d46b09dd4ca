"""CMakeLists.txt, read as text: every file of the project is installed, and finds the others in its place."""

import shutil

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
    assert read_project(ROOT).tests == ["FoundationSeg", "FoundationSeg.py"]


@pytest.mark.parametrize(
    "name",
    [
        "FoundationSeg/Resources/UI/Panel.qrc",
        "FoundationSeg/Another.py",
        "FoundationSegLib/core/table.csv",
        "Resources/LabelSets/organs.json",
    ],
)
def test_a_file_that_no_rule_installs_is_found(project, name):
    with spoilt(project / name, b""):
        assert len(misplaced(project)) == 1
    assert misplaced(project) == []


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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("slicerMacroBuildScriptedModule(NAME X SCRIPTS Gone.py)", "not there: Gone.py"),
        ("install(FILES GONE DESTINATION a COMPONENT RuntimeLibraries)", "not there: GONE"),
        ("slicerMacroBuildScriptedModule(NAME X RESOURCES LICENSE LICENSE)", "two files"),
        ("file(GLOB x *.py)", "not known"),
        ("execute_process(COMMAND true)", "not known"),
    ],
)
def test_a_mistake_in_the_lists_is_refused(tmp_path, text, complaint):
    (tmp_path / "LICENSE").write_text("", encoding="utf-8")
    (tmp_path / "CMakeLists.txt").write_text(f"project(X)\n{text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_project(tmp_path)


def test_the_installed_tree_works_by_itself(tmp_path):
    modules = tmp_path / MODULES
    for place, path in read_project(ROOT).installed.items():
        (modules / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, modules / place)
    check_installed_tree(modules)
