"""Files on the command line: those that are read, and those that are written."""

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import OutputError
from ..io.output_files import check_writable, replace_atomically

Writer = tuple[Path, Callable[[Path], None]]  # a file to be written, and who writes it to the path it is given


def path_argument(text: str) -> Path:
    """A path from the command line. An empty one, as an unset shell variable gives it, would mean the working folder.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)


def require_targets(targets: Mapping[str, Path | None], sources: Mapping[str, Path]) -> None:
    """Make sure that every file to be written can be, and is neither one that is read nor written twice.

    Args:
        targets: by option (without dashes), the file that is written; None where none is wanted.
        sources: by name, the files that are read.

    Raises:
        OutputError: one cannot be written, or would replace another.
    """
    taken = {_identity(path): name for name, path in sources.items()}
    for option, path in targets.items():
        if path is None:
            continue
        check_writable(path)
        if _identity(path) in taken:
            raise OutputError(f"--{option} {path.name} would replace {taken[_identity(path)]}; choose another name")
        taken[_identity(path)] = f"--{option}"


def text_writer(path: Path, text: str) -> Writer:
    """A file that is a text, and who writes it."""
    return path, lambda target: write_text(target, text)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with the ends of lines that it has.

    Raises:
        OutputError: the disk does not take it.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {error.strerror or error}") from error


def _identity(path: Path) -> object:
    """The same for two paths to one file, through links too, whether it exists yet or not."""
    try:
        status = path.stat()
    except OSError:
        whole = path.absolute()
        return _identity(whole.parent), whole.name
    return status.st_dev, status.st_ino


def write_together(writers: Sequence[Writer]) -> None:
    """Write every file beside its target, and only when all are whole put them in place."""
    with contextlib.ExitStack() as stack:
        # The stack ends with what it began with: the first file comes into its place first, and if it cannot (another
        # program holds it open), no other file is touched.
        places = [stack.enter_context(replace_atomically(target)) for target, _ in reversed(writers)][::-1]
        for (target, write), temporary in zip(writers, places, strict=True):
            try:
                write(temporary)
            except OutputError as error:  # the user knows the file by its own name
                raise OutputError(str(error).replace(temporary.name, target.name)) from error
