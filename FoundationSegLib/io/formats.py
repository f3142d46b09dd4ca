"""The formats of results, by the endings of their names."""

from pathlib import Path
from typing import Literal, get_args

from ..core.errors import OutputError

OutputFormat = Literal["seg.nrrd", "nii.gz", "nrrd"]


def output_format(path: Path) -> OutputFormat:
    """The format that a file name asks for by its ending; capitals do not matter.

    Raises:
        OutputError: another ending; the message lists those there are.
    """
    for ending in get_args(OutputFormat):
        if path.name.lower().endswith(f".{ending}"):
            return ending
    known = ", ".join(f".{ending}" for ending in get_args(OutputFormat))
    raise OutputError(f"{path.name}: the name of a result must end in one of {known}")
