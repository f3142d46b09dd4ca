"""Arguments that several commands take: files, sizes, numbers within limits, ranges of slices, boxes, regions."""

import argparse
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..imaging.geometry import Box, Geometry
from ..imaging.volume import Volume, require_image
from ..progress import bytes_of
from ..prompts.kinds import PromptSet
from ..prompts.regions import AroundPrompt, InsideBox, seen_box
from .outputs import interrupts_wait

_SLICE_NUMBER = re.compile(r"[0-9]{0,9}")
_AROUND_PROMPTS = re.compile(r"prompts(?::([0-9]{1,4}(?:\.[0-9]{1,3})?))?")
_USUAL_MARGIN_MM = 30.0
ALL_FRAMES, _FRAME_NUMBER = "all", re.compile(r"[0-9]{1,9}")
OVERVIEW_PX = (1600, 1200)  # width and height of a picture of results
_LONGEST_PATH, _LONGEST_NAME = 4000, 255  # of Linux, in bytes

Range = tuple[int | None, int | None]
Ranges = tuple[Range, Range, Range]


def add_model_arguments(parser: argparse.ArgumentParser, policies: str = "a policy's name, or width,centre") -> None:
    """Add the arguments of every command that reads an image and asks a model."""
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--intensity", metavar="POLICY", default="auto", help=policies)
    parser.add_argument("--download", action="store_true", help="download the model if it is not here yet")
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    parser.add_argument("--frame", metavar="N", type=frame_argument, help="which frame of a 4-D image, from 0")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def read_image(path: Path, options: argparse.Namespace) -> Volume:
    """Read an image, with the options of :func:`add_model_arguments`.

    Raises:
        InputError, GeometryError: it cannot be read, or there is nothing to see in it.
    """
    with interrupts_wait():
        from ..io.images import read_volume

    if options.frame == ALL_FRAMES:
        raise InputError("--frame all is for 'segment'; choose one frame with --frame N")
    volume = read_volume(path, series=options.series, frame=options.frame)
    require_image(volume)
    return volume


def path_argument(text: str) -> Path:
    """Parse a path. An empty one, as an unset shell variable gives it, would mean the working folder.

    Raises:
        argparse.ArgumentTypeError: it is empty, or longer than systems take.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    path = Path(text)
    if len(text) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise argparse.ArgumentTypeError("is longer than the name of a file can be")
    return path


def frame_argument(text: str) -> int | str:
    """Parse the value of ``--frame``: a number, or ``all``."""
    try:
        return text if text == ALL_FRAMES else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is neither the number of a frame nor all") from error


def frame_file_argument(text: str) -> tuple[int, Path]:
    """Parse a frame with its file: ``N=FILE``."""
    number, equals, path = text.partition("=")
    if not equals or not _FRAME_NUMBER.fullmatch(number):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form N=FILE")
    return int(number), path_argument(path)


def size_argument(text: str) -> int:
    """Parse an amount of memory such as ``6GB``, in bytes."""
    try:
        return bytes_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def number_within(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """Make a parser of numbers within a range, both ends included."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            number = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {number} from {low} to {high}")
        return value

    return parse


def slice_range(text: str) -> Range:
    """Parse slice numbers as in Python: the first, and the first behind the last; either may be left out."""
    start, colon, stop = text.partition(":")
    if not colon or not all(_SLICE_NUMBER.fullmatch(part) for part in (start, stop)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form START:STOP")
    return (int(start) if start else None), (int(stop) if stop else None)


def slices_argument(text: str) -> Range:
    """Parse the value of ``--slices``: ``all``, one number, or a range."""
    if text == "all":
        return None, None
    if text and _SLICE_NUMBER.fullmatch(text):
        return int(text), int(text) + 1
    try:
        return slice_range(text)
    except argparse.ArgumentTypeError as error:
        message = f"{text[:40]!r} is neither all, nor a number, nor of the form START:STOP"
        raise argparse.ArgumentTypeError(message) from error


def box_ranges(text: str) -> Ranges:
    """Parse three ranges of voxels, along i, j and k: ``I,J,K``, each START:STOP as in Python."""
    try:
        i, j, k = (slice_range(part) for part in text.split(","))
    except (argparse.ArgumentTypeError, ValueError) as error:
        message = f"{text[:40]!r} is not of the form START:STOP,START:STOP,START:STOP (along i, j and k)"
        raise argparse.ArgumentTypeError(message) from error
    for start, stop in (i, j, k):
        if stop is not None and stop <= (start or 0):
            raise argparse.ArgumentTypeError(
                f"the range {start or 0}:{stop} holds no voxel; its end must be above its start"
            )
    return i, j, k


def box_of(ranges_ijk: Ranges, geometry: Geometry) -> Box:
    """Return the box of ranges in an image, whose ends stand for what was left out; it may reach out of the image."""
    (k0, k1), (j0, j1), (i0, i1) = (
        (start or 0, length if stop is None else stop)
        for (start, stop), length in zip(ranges_ijk[::-1], geometry.shape_kji, strict=True)
    )
    return Box((k0, j0, i0), (k1, j1, i1))


@dataclass(frozen=True, slots=True)
class RoiArgument:
    """The part of the image that a model sees: voxels along i, j and k, or what lies around the prompts."""

    ranges_ijk: Ranges | None
    margin_mm: float = 0.0

    def box(self, prompts: PromptSet, geometry: Geometry) -> Box:
        """Return its box in an image; ``prompts`` in RAS, with their voxels.

        Raises:
            InputError: no voxel of the image is inside.
        """
        if self.ranges_ijk is None:
            every = [prompt for segment in prompts.segments for prompt in segment.prompts]
            return seen_box(AroundPrompt(self.margin_mm), every, geometry)
        return seen_box(InsideBox(box_of(self.ranges_ijk, geometry)), (), geometry)


def roi_argument(text: str) -> RoiArgument:
    """Parse the value of ``--roi``: ``I,J,K``, each START:STOP as in Python, or ``prompts`` and a margin in mm."""
    around = _AROUND_PROMPTS.fullmatch(text)
    if around is not None:
        margin_mm = float(around[1]) if around[1] is not None else _USUAL_MARGIN_MM
        if margin_mm <= 0:
            raise argparse.ArgumentTypeError("the margin around the prompts must be above 0 mm")
        return RoiArgument(None, margin_mm)
    try:
        return RoiArgument(box_ranges(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or prompts:MM, for what lies around the prompts") from error
