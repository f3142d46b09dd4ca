"""`--classes` and `--text`: what is asked for by words, beside a prompts file or without one."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..catalog.model_cards import ModelCard
from ..errors import InferenceError, PromptError
from ..prompts.capabilities import asks_for_everything, segments_by_name
from ..prompts.kinds import PromptSet
from ..prompts.prompts_file import read_prompts
from ..requests.segmentation import Prediction
from .targets import path_argument

_SEGMENT = re.compile(r"segments\[(\d+)\](:? ?)(.*)", re.DOTALL)
_NAMES_IN_A_NOTE = 200  # characters; a note is one line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what to segment."""
    parser.add_argument("--prompts", metavar="FILE", type=path_argument, help="what to segment (JSON)")
    parser.add_argument(
        "--classes", metavar="NAME,…", help="classes of the model by name or number, a segment each, or 'everything'"
    )
    parser.add_argument(
        "--text", metavar="PHRASE", action="append", default=[], help="a phrase; again for another segment"
    )


def read_asked(options: argparse.Namespace, card: ModelCard) -> PromptSet:
    """The prompts of the file, if any, then the segments that are asked for by words.

    Raises:
        InputError, PromptError: the file is wrong, a name is of no class, or a segment comes twice.
    """
    asked = read_prompts(options.prompts) if options.prompts is not None else PromptSet(())
    named = segments_by_name(card, _names(options.classes), options.text)
    for one in named:
        if any(one.name == segment.name for segment in asked.segments):
            raise PromptError(f"the prompts file has a segment {one.name!r} already, which --classes or --text name")
    return replace(asked, segments=(*asked.segments, *named))


def _names(classes: str | None) -> Sequence[str]:
    return [name.strip() for name in classes.split(",")] if classes else []


def prompts_folder(options: argparse.Namespace) -> Path:
    """What the files of mask prompts are relative to."""
    return options.prompts.parent if options.prompts is not None else Path()


def without_absent(
    options: argparse.Namespace, prompts: PromptSet, prediction: Prediction
) -> tuple[PromptSet, Prediction]:
    """Where everything was asked for, what was found of it; all as it is, otherwise.

    Raises:
        InferenceError: nothing was found.
    """
    if not asks_for_everything(_names(options.classes)):
        return prompts, prediction
    kept = [n for n, one in enumerate(prediction.segments) if not one.mask.box.is_empty]
    if not kept:
        raise InferenceError("the model found none of its classes in the image")
    absent = [one.name for n, one in enumerate(prompts.segments) if n not in kept]
    notes = [told for note in prediction.notes if (told := _renumbered(note, kept))]
    if absent:
        names = ", ".join(absent)
        short = names if len(names) <= _NAMES_IN_A_NOTE else f"{names[:_NAMES_IN_A_NOTE]}…"
        notes.append(f"not found, and left out: {len(absent)} of {len(prompts.segments)}: {short}")
    found = replace(prediction, segments=tuple(prediction.segments[n] for n in kept), notes=tuple(notes))
    return replace(prompts, segments=tuple(prompts.segments[n] for n in kept)), found


def _renumbered(note: str, kept: Sequence[int]) -> str:
    """A note on a segment with its new number; on one that was left out without any, and nothing of its absence."""
    told = _SEGMENT.fullmatch(note)
    if told is None:
        return note
    number, joint, text = int(told[1]), told[2], told[3]
    if number in kept:
        return f"segments[{kept.index(number)}]{joint}{text}"
    return "" if text == "the model found nothing" else text.lstrip(".: ")
