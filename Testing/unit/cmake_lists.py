"""Read this project's CMakeLists.txt without CMake: what they set, and which file they install where.

It knows the commands that this project uses, and refuses the rest, so that nothing is overlooked. What it says is held
against CMake itself where there is one (``test_cmake.py``).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_COMMAND = re.compile(r"(\w+)\s*\(((?:[^()\"]|\"[^\"]*\")*)\)")
_ARGUMENT = re.compile(r"\"([^\"]*)\"|(\S+)")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
# Without effect on which files there are.
_IGNORED = ("cmake_minimum_required", "find_package", "include", "if", "endif", "slicer_add_python_unittest")


@dataclass
class Project:
    """What the CMakeLists.txt say.

    Attributes:
        name: the project's.
        variables: every variable at the end, lists with semicolons.
        installed: the place of each file below Slicer's folder for scripted modules, and where it comes from.
        tests: the scripts that are run as tests; the module that also gets Slicer's generic ones.
    """

    name: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    installed: dict[str, Path] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)


def read_project(root: Path) -> Project:
    """Read the CMakeLists.txt of a folder and of those below it that it adds.

    Raises:
        ValueError: a command that this reader does not know, or a file that is not there.
    """
    project = Project(variables={"Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR": "."})
    _read_folder(root, project)
    return project


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every command of a CMakeLists.txt with its arguments, variables as they stand."""
    for name, inner in _COMMAND.findall(re.sub(r"(?m)^\s*#.*$", "", text)):
        yield name.lower(), [quoted or plain for quoted, plain in _ARGUMENT.findall(inner)]


def _read_folder(folder: Path, project: Project) -> None:
    for name, raw in commands((folder / "CMakeLists.txt").read_text(encoding="utf-8")):
        project.variables["CMAKE_CURRENT_SOURCE_DIR"] = str(folder)
        arguments = [part for text in raw for part in _expand(text, project.variables)]
        if name == "project":
            project.name = arguments[0]
        elif name == "set":
            project.variables[arguments[0]] = ";".join(arguments[1:])
        elif name == "file":
            project.variables[arguments[1]] = ";".join(_glob(folder, arguments))
        elif name == "add_subdirectory":
            _read_folder(folder / arguments[0], project)
        elif name == "slicermacrobuildscriptedmodule":
            _install_module(folder, arguments, project)
        elif name == "install":
            _install(folder, f"{arguments[3]}/{arguments[1]}", arguments[1], project)
        elif name not in _IGNORED:
            raise ValueError(f"{folder / 'CMakeLists.txt'}: {name}() is not known here")
        if name == "slicer_add_python_unittest":
            project.tests.append(arguments[1])


def _expand(text: str, variables: dict[str, str]) -> list[str]:
    value = _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)
    return value.split(";") if _VARIABLE.search(text) else [value]


def _glob(folder: Path, arguments: list[str]) -> list[str]:
    """``file(GLOB_RECURSE VARIABLE CONFIGURE_DEPENDS RELATIVE FOLDER PATTERN...)``, names relative to the folder."""
    kind, _, *options = arguments
    if kind != "GLOB_RECURSE" or options[:3] != ["CONFIGURE_DEPENDS", "RELATIVE", str(folder)]:
        raise ValueError(f"file({kind} ...) is not known here")
    found = set()
    for pattern in options[3:]:
        below, _, ending = pattern.rpartition("/")
        found |= {path.relative_to(folder).as_posix() for path in (folder / below).rglob(ending)}
    return sorted(found)


def _install_module(folder: Path, arguments: list[str], project: Project) -> None:
    keyword, values = "", {"NAME": [], "SCRIPTS": [], "RESOURCES": [], "WITH_GENERIC_TESTS": []}
    for argument in arguments:
        if argument in values:
            keyword = argument
        else:
            values[keyword].append(argument)
    for name in values["SCRIPTS"] + values["RESOURCES"]:
        if name:
            _install(folder, name, name, project)
    if "WITH_GENERIC_TESTS" in arguments:
        project.tests.append(values["NAME"][0])


def _install(folder: Path, place: str, name: str, project: Project) -> None:
    place = Path(place).as_posix()
    if not (folder / name).is_file():
        raise ValueError(f"{folder / 'CMakeLists.txt'} names a file that is not there: {name}")
    if place in project.installed:
        raise ValueError(f"two files would be installed as {place}")
    project.installed[place] = folder / name
