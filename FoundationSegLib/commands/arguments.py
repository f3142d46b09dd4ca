"""Arguments that several commands take: files, sizes, ranges and regions; prompts, seeds and mask prompts."""

import argparse
import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog.label_sets import listed
from ..catalog.model_cards import ModelCard
from ..errors import GeometryError, InferenceError, InputError, PromptError
from ..imaging.geometry import Box, Geometry
from ..imaging.masks import PackedMask, pack_mask
from ..imaging.volume import Volume, require_image
from ..progress import bytes_of
from ..prompts.capabilities import asks_for_everything, segments_by_name
from ..prompts.kinds import MaskPrompt, PromptSet
from ..prompts.prompts_file import read_prompts
from ..prompts.regions import AroundPrompt, InsideBox, seen_box
from ..requests.segmentation import Prediction, seeded
from .outputs import interrupts_wait

if TYPE_CHECKING:
    from ..io.segmentations import SegmentFile

_SEGMENT_NOTE = re.compile(r"segments\[(\d+)\](:? ?)(.*)", re.DOTALL)
_LOCATION = re.compile(r"segments\[(\d+)\]")
_OPTIONS = {"class": "--classes", "text": "--text", "mask": "--seed-from"}  # by the kind of a prompt
_NAMES_IN_A_NOTE = 200  # characters; a note is one line
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


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what to segment."""
    add = parser.add_argument
    add("--prompts", metavar="FILE", type=path_argument, help="what to segment (JSON)")
    add("--classes", metavar="NAME,…", help="classes of the model by name or number, a segment each, or 'everything'")
    add("--text", metavar="PHRASE", action="append", default=[], help="a phrase; again for another segment")
    add("--seed-from", metavar="FILE", type=path_argument, help="what to start from: segments of the same names")


def read_prompt_options(options: argparse.Namespace, card: ModelCard) -> PromptSet:
    """Read the prompts of the file, those by classes and texts, and the seeds of the other file.

    Raises:
        InputError, PromptError: a file is wrong, a name is of no class, a segment comes twice, or there is no segment.
    """
    prompts = read_prompts(options.prompts) if options.prompts is not None else PromptSet(())
    options.sources = [f"{options.prompts.name}: segments[{n}]" for n in range(len(prompts.segments))]
    named = segments_by_name(card, _class_names(options), options.text)
    for segment in named:
        if any(segment.name == other.name for other in prompts.segments):
            raise PromptError(
                f"the prompts file has a segment {segment.name!r} already, which --classes or --text name"
            )
    prompts = replace(prompts, segments=(*prompts.segments, *named))
    if options.seed_from is not None:
        prompts = _with_seeds(prompts, options.seed_from)
    if not prompts.segments:
        raise InputError("say what to segment: --prompts FILE, --classes NAMES, --text PHRASE or --seed-from FILE")
    for segment in prompts.segments[len(options.sources) :]:
        options.sources.append(f"{_OPTIONS[segment.prompts[0].kind]} {segment.name[:60]}")
    return prompts


@contextlib.contextmanager
def naming_sources(options: argparse.Namespace) -> Iterator[None]:
    """Say in errors where a prompt was written: its place in the file, or the option that it is from."""
    try:
        yield
    except PromptError as error:
        match = _LOCATION.match(error.location)
        if match is None or int(match[1]) >= len(options.sources):
            raise
        source, text = options.sources[int(match[1])], str(error).removeprefix(f"{error.location}: ")
        rest = error.location[match.end() :] if source.endswith("]") else ""
        raise PromptError(text, source + rest) from error


def _class_names(options: argparse.Namespace) -> Sequence[str]:
    return [name.strip() for name in options.classes.split(",")] if options.classes else []


def _with_seeds(prompts: PromptSet, path: Path) -> PromptSet:
    """Add the segments of a file as seeds, whose voxels are still to be read.

    Raises:
        InputError: the file cannot be read, or none of its segments is prompted.
    """
    with interrupts_wait():
        from ..io.segmentations import segment_names

    names = segment_names(path)
    with_seeds = seeded(prompts, [MaskPrompt(str(path.absolute()), name) for name in names])
    if prompts.segments and with_seeds == prompts:
        prompted = listed([segment.name for segment in prompts.segments])
        raise InputError(f"{path.name} has no segment that is prompted; it has: {listed(names)}; not: {prompted}")
    return with_seeds


def prompts_folder(options: argparse.Namespace) -> Path:
    """Return the folder that the files of mask prompts are relative to: that of the prompts file, or of the report."""
    file: Path | None = options.prompts or options.from_report
    return file.parent if file is not None else Path()


def asked_for_everything(options: argparse.Namespace) -> bool:
    """True where every class of the model was asked for."""
    return asks_for_everything(_class_names(options))


def mask_files(prompts: PromptSet, folder: Path) -> tuple[Path, ...]:
    """List the files of the mask prompts, each once; ``folder`` is that of the prompts file."""
    every = (prompt for segment in prompts.segments for prompt in segment.prompts)
    return tuple(dict.fromkeys(folder / prompt.file for prompt in every if isinstance(prompt, MaskPrompt)))


def without_folders(prompts: PromptSet) -> PromptSet:
    """Return the prompts for reports, which name the files of mask prompts without their folders."""
    return change_masks(prompts, lambda prompt, _: replace(prompt, file=re.split(r"[/\\]", prompt.file)[-1]))


def change_masks(prompts: PromptSet, change: Callable[[MaskPrompt, str], MaskPrompt]) -> PromptSet:
    """Return the same prompts with each mask prompt changed by a function, which also gets its location."""
    segments = []
    for n, segment in enumerate(prompts.segments):
        changed = (
            change(prompt, f"segments[{n}].prompts[{m}]") if isinstance(prompt, MaskPrompt) else prompt
            for m, prompt in enumerate(segment.prompts)
        )
        segments.append(replace(segment, prompts=tuple(changed)))
    return replace(prompts, segments=tuple(segments))


def read_masks(prompts: PromptSet, folder: Path, geometry: Geometry) -> PromptSet:
    """Read the voxels of each mask prompt.

    Args:
        prompts: the prompts.
        folder: that of the prompts file, which the mask files are relative to.
        geometry: the image; a mask must be on its grid, but may be a crop of it or reach beyond.

    Raises:
        PromptError: a mask file cannot be read, has no such segment, or is on another grid.
    """

    from ..io.segmentations import open_segments

    opened = functools.cache(open_segments)  # seeds are many segments of one file

    def with_voxels(prompt: MaskPrompt, where: str) -> MaskPrompt:
        try:
            return replace(prompt, voxels=mask_on(geometry, opened(folder / prompt.file), prompt.segment))
        except (InputError, GeometryError) as error:
            raise PromptError(str(error), f"{where}.file") from error

    return change_masks(prompts, with_voxels)


def read_mask(path: Path, segment_name: str, geometry: Geometry) -> PackedMask:
    """Read a segment of a file on the voxels of an image. Raises as :func:`mask_on`, and where it cannot be read."""
    from ..io.segmentations import open_segments

    return mask_on(geometry, open_segments(path), segment_name)


def mask_on(geometry: Geometry, file: "SegmentFile", segment_name: str) -> PackedMask:
    """Return a segment of a file on the voxels of an image; what lies outside of the image is left out.

    Raises:
        InputError, GeometryError: the file has no such segment, or is on another grid.
    """
    mask, match = file.mask(segment_name), geometry.match(file.geometry)
    if match is None:
        raise GeometryError("the mask is not on the grid of the image; resample it to the image first")
    inside = match.box.intersection(geometry.box)  # a segmentation is often saved without its empty margin
    return pack_mask(match.turned(mask)[inside.relative_to(match.box).slices], inside.start_kji)


def without_absent(prompts: PromptSet, prediction: Prediction) -> tuple[PromptSet, Prediction]:
    """Leave out the segments that were not found.

    Raises:
        InferenceError: nothing was found.
    """
    numbers = [n for n, segment in enumerate(prediction.segments) if not segment.mask.box.is_empty]
    if not numbers:
        raise InferenceError("the model found none of its classes in the image")
    absent = [segment.name for n, segment in enumerate(prompts.segments) if n not in numbers]
    notes = [renumbered for note in prediction.notes if (renumbered := _renumbered(note, numbers))]
    if absent:
        names = ", ".join(absent)
        short = names if len(names) <= _NAMES_IN_A_NOTE else f"{names[:_NAMES_IN_A_NOTE]}…"
        notes.append(f"not found, and left out: {len(absent)} of {len(prompts.segments)}: {short}")
    present = replace(prediction, segments=tuple(prediction.segments[n] for n in numbers), notes=tuple(notes))
    return replace(prompts, segments=tuple(prompts.segments[n] for n in numbers)), present


def _renumbered(note: str, numbers: Sequence[int]) -> str:
    """Renumber the segment in a note; of one that was left out, keep the note without a number unless it says so."""
    match = _SEGMENT_NOTE.fullmatch(note)
    if match is None:
        return note
    number, joint, text = int(match[1]), match[2], match[3]
    if number in numbers:
        return f"segments[{numbers.index(number)}]{joint}{text}"
    return "" if text == "the model found nothing" else text.lstrip(".: ")
