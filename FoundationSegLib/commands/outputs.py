"""Messages, progress, files and reports of a command: interrupts wait where they must, files are written together.

What is to be written is checked before any work, and written as a whole or not at all.
"""

import contextlib
import json
import platform
import re
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import OutputError, write_failure
from ..folders import check_writable, output_format, replace_atomically
from ..progress import ProgressReport

if TYPE_CHECKING:  # a Python without NumPy is told so by this file
    import numpy as np
    from numpy.typing import NDArray

    from ..imaging.geometry import Box, Geometry
    from ..imaging.volume import Volume
    from ..io.dicom_measurements import MapQuantity

_ABSURD = re.compile(r"\S{150,}")  # longer than any name or path that is of use in a message
_LONGEST_LINE = 2000
COLUMNS = 100  # the width that human output keeps to
SUCCESS, FAILED, BAD_INPUT, NO_MODEL, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
_STAGES = {
    "download": "Downloading",
    "load": "Loading",
    "restart": "Restarting",
    "slices": "Segmenting",
    "view": "Looking at the image",
    "prompts": "Segmenting",
    "decode": "Segmenting",
    "classify": "Looking at slices",
    "text": "Reading labels",
    "evidence": "Looking for evidence",
    "evaluate": "Evaluating",
    "encode": "Looking at slices",
    "train": "Learning",
    "score": "Testing",
    "verify": "Verifying",
    "import": "Importing",
    "export": "Exporting",
    "packages": "Asking pip",
    "find": "Looking for images",
    "cases": "Cases",
    "fetch": "Fetching",
    "send": "Storing",
    "wait": "Waiting for another program",
}


def say(line: str) -> None:
    """Print one line for the user on stderr, since stdout is for results."""
    if sys.stderr is not None:  # closed by whoever started the program
        line = _ABSURD.sub(lambda match: f"{match[0][:60]}…{match[0][-20:]}", one_line(line))
        print(fit(line, _LONGEST_LINE), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Put a text on one line, without the control characters that names from files may carry to the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def fit(text: str, width: int) -> str:
    """Cut a text to a width, with an ellipsis where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def report_wrong_python(error: ModuleNotFoundError) -> int:
    """Say which Python to use instead of one that lacks a package; return the exit code."""
    folder = Path(__file__).resolve().parents[2]
    program = folder / ".venv" / ("Scripts/foundationseg.cmd" if sys.platform == "win32" else "bin/foundationseg")
    remedy = str(program) if program.exists() else f"'python3 Testing/run.py demo' in {folder}, which makes .venv there"
    say(f"foundationseg: this Python ({sys.executable}) lacks the package {error.name}; use {remedy}")
    return NO_MODEL


class ProgressLine:
    """A line that counts steps in place; silent unless stderr is a terminal. Leaving its block takes it away."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, report: ProgressReport) -> None:
        """Show a report."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        text = f"{_STAGES.get(report.stage, report.stage)}{_count(report)}"
        print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def clear(self) -> None:
        """Take the line away, so that the next text starts on a clean one."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)
            self._width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def _count(report: ProgressReport) -> str:
    if not report.total:
        return fit(f": {report.item}", 60) if report.item else ""  # a line that wraps could not be taken away
    if report.stage == "download":
        return f" {report.done / 1e6:.0f}/{report.total / 1e6:.0f} MB" + (f" ({report.item})" if report.item else "")
    rest = f" ({report.item})" if report.stage == "cases" else ""
    return f" {report.done}/{report.total}{rest}"


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C count at the end of the block only.

    For the imports of extension modules: interrupted in their midst, VTK's end in a broken import, or in a crash of the
    interpreter (14 of 47 tries).

    Raises:
        KeyboardInterrupt: at the end, if it came.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt


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


def source_slices(options: Namespace, paths: Sequence[Path | None], geometry: "Geometry") -> tuple[Path, ...]:
    """Make sure that files can hold an image's grid; where one is a .dcm, list the DICOM files of the image along k.

    Raises:
        OutputError: NIfTI cannot hold the grid, or the image is no DICOM series of one slice a file.
    """
    kinds = {path: output_format(path) for path in paths if path is not None}
    for path, kind in kinds.items():
        if kind in ("nii.gz", "nrrd"):
            from ..io.segmentations import check_grid

            check_grid(path, geometry)
    if "dcm" not in kinds.values():
        return ()
    from ..io.dicom_segmentation import source_files

    return source_files(options.volume, options.series, geometry)


def map_writer(
    path: Path,
    volume: "Volume",
    box: "Box",
    values_kji: "NDArray[np.float32]",
    quantity: "MapQuantity",
    slices: Sequence[Path],
    outside: float = 0.0,
) -> FileWriter:
    """Return the writer of a map: a Parametric Map of the slices that have values, or all of the image's grid.

    Args:
        path: a .dcm, .nrrd or .nii.gz.
        volume: the image.
        box, values_kji: the voxels that have values, and those.
        quantity: of the values.
        slices: for a .dcm, the DICOM files of the image, as :func:`source_slices` lists them.
        outside: the value of all other voxels.
    """
    import numpy as np

    whole = np.full(volume.geometry.shape_kji, outside, np.float32)
    whole[box.slices] = values_kji
    if output_format(path) == "dcm":
        from ..io.dicom_measurements import parametric_map
        from ..io.dicom_segmentation import write_dicom

        seen, values = slices[box.slices[0]], whole[box.slices[0]]
        return path, lambda target: write_dicom(target, lambda: parametric_map(seen, values, quantity))
    from ..io.segmentations import write_values

    return path, lambda target: write_values(target, whole, volume.geometry, volume.in_pixels)
