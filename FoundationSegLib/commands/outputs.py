"""Files and reports that commands write: checked before any work, written together or not at all."""

import contextlib
import json
import platform
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OutputError, write_failure
from ..io.output_files import check_writable, replace_atomically
from .terminal import say

FileWriter = tuple[Path, Callable[[Path], None]]  # a file, and the function that writes it to the path it is given
_PACKAGES = ("numpy", "torch", "transformers", "timm", "SimpleITK", "slicer-core", "vtk")


def require_targets(targets: Mapping[str, Path | None], sources: Mapping[str, Path | None]) -> None:
    """Make sure that every file to be written can be, and is neither one that is read nor written twice.

    Args:
        targets: by option (without dashes), the file that is written; None for an option that is not used.
        sources: by name, the files that are read.

    Raises:
        OutputError: one cannot be written, or would replace another.
    """
    owners = {_identity(path): name for name, path in sources.items() if path is not None}
    for option, path in targets.items():
        if path is None:
            continue
        check_writable(path)
        if _identity(path) in owners:
            raise OutputError(f"--{option} {path.name} would replace {owners[_identity(path)]}; choose another name")
        owners[_identity(path)] = f"--{option}"


def _identity(path: Path) -> object:
    """Return a key that is the same for two paths to one file, through links too, even if it does not exist yet."""
    try:
        status = path.stat()
    except OSError:
        whole = path.absolute()
        if whole.parent == whole:  # a drive that is not there
            return str(whole)
        return _identity(whole.parent), whole.name
    return status.st_dev, status.st_ino


def text_writers(texts: Sequence[tuple[Path | None, str]]) -> list[FileWriter]:
    """Return the writers of files that are texts; the path of an option that is not used is None."""
    return [(path, lambda target, text=text: write_text(target, text)) for path, text in texts if path is not None]


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with the ends of lines that it has.

    Raises:
        OutputError: the disk does not take it.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {write_failure(error)}") from error


def write_together(writers: Sequence[FileWriter]) -> None:
    """Write every file beside its target, and only when all are whole put them in place."""
    with contextlib.ExitStack() as stack:
        # The stack ends with what it began with: the first file comes into its place first, and if it cannot (another
        # program holds it open), no other file is touched.
        temporary_paths = [stack.enter_context(replace_atomically(target)) for target, _ in reversed(writers)][::-1]
        for (target, write), temporary in zip(writers, temporary_paths, strict=True):
            try:
                write(temporary)
            except OutputError as error:  # the user knows the file by its own name
                raise OutputError(str(error).replace(temporary.name, target.name)) from error


def software_versions(*more: str) -> dict[str, str]:
    """Return the versions of FoundationSeg, Python, the system, and the packages that had a part in the result."""
    versions = {"FoundationSeg": __version__, "python": platform.python_version(), "system": platform.system()}
    for package in (*_PACKAGES, *more):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def report_text(document: Any) -> str:
    """Return a report as it is printed and written."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def publish(
    document: Any, lines: Sequence[str], notes: Sequence[str], writers: Sequence[FileWriter], options: Namespace
) -> None:
    """Write the files of a command and its ``--report``, all or none; then say the notes and print the result."""
    write_together([*writers, *text_writers([(options.report, report_text(document))])])
    for note in notes:
        say(f"note: {note}")
    print_result(document, lines, as_json=options.json)


def print_result(document: Any, lines: Sequence[str], *, as_json: bool) -> None:
    """Print a report as JSON, or the lines that say the same to a person."""
    text = report_text(document).rstrip() if as_json else "\n".join(lines)
    if text:
        print(text)
