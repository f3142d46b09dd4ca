"""Reports of `segment`: everything that determines a result, and how `--from-report` gets the same voxels again."""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..catalog.label_sets import listed
from ..catalog.model_cards import ModelCard
from ..codec import from_document, to_document
from ..errors import CheckpointError, DocumentError, InputError, PromptError
from ..hub.store import Store, default_store_folder
from ..imaging.geometry import Box
from ..prompts.kinds import MaskPrompt, PromptSet
from ..prompts.prompts_file import parse_prompts, prompts_to_document
from ..requests.maintenance import BoxRule
from ..requests.segmentation import Prediction, Propagation
from .arguments import change_masks, read_prompt_options, without_folders
from .outputs import software_versions

_LONGEST_REPORT = 64 * 2**20  # bytes; scribbles of a thousand segments take a hundredth


@dataclass(frozen=True, slots=True)
class SeedRecord:
    """Record of a mask prompt: its file without folders, the segment in it, and the voxels that it had."""

    file: str
    segment: str
    voxels: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Options and inputs that determine the voxels, beside model, prompts, intensity, device and precision.

    Attributes:
        image: the fingerprint of the image, :attr:`FoundationSegLib.imaging.volume.Volume.key`.
        frame: the frame of a 4-D image, from 0; None for a 3-D one.
        propagation: how 2-D prompts were carried on; None where they were not.
        region: the box that the model was limited to; None for the whole image.
        parts: the boxes that the model saw in fact, for want of memory several or a smaller one; empty for the whole.
        box_rule: how 3-D boxes are followed.
        overlap: who keeps a voxel that two segments want.
        seeds: the mask prompts, in the order of the prompts.
        left_out: where every class was asked for, those that were not found: number among all, and document.
    """

    image: str
    frame: int | None = None
    propagation: Propagation | None = None
    region: Box | None = None
    parts: tuple[Box, ...] = ()
    box_rule: BoxRule = "surest"
    overlap: Literal["allow", "protect"] = "allow"
    seeds: tuple[SeedRecord, ...] = ()
    left_out: Mapping[str, Any] | None = None


def seed_records(prompts: PromptSet) -> tuple[SeedRecord, ...]:
    """Record the mask prompts, whose voxels have been read."""
    every = (prompt for segment in without_folders(prompts).segments for prompt in segment.prompts)
    return tuple(
        SeedRecord(prompt.file, prompt.segment, prompt.voxels.voxels, _hash_of(prompt))
        for prompt in every
        if isinstance(prompt, MaskPrompt) and prompt.voxels is not None
    )


def _hash_of(prompt: MaskPrompt) -> str:
    assert prompt.voxels is not None
    box = prompt.voxels.box
    return hashlib.sha256(repr((box.start_kji, box.stop_kji)).encode() + prompt.voxels.bits).hexdigest()


def left_out_document(prompts: PromptSet, present: PromptSet) -> dict[str, Any]:
    """The segments of ``prompts`` that are not among those present, by their number."""
    names = {segment.name for segment in present.segments}
    every = prompts_to_document(prompts)["segments"]
    return {str(n): document for n, document in enumerate(every) if document["name"] not in names}


def segment_report(
    prediction: Prediction,
    options: ResultOptions,
    prompts: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    timings_s: Mapping[str, float],
) -> dict[str, Any]:
    """Compose the report of ``segment``.

    Args:
        prediction: the engine's answer.
        options: everything else that determines the voxels.
        prompts: the prompts file's document.
        segments: name, voxels, volume and score of each segment as written.
        notes: what was done to the image, and what the prediction had to say.
        timings_s: seconds of the command's own stages: ``start``, ``write``, ``total``.
    """
    stages = {**timings_s, **prediction.timings_s}
    return {
        "version": 1,
        "command": "segment",
        "model": prediction.checkpoint.to_document(),
        "device": prediction.device,
        "precision": prediction.precision,
        "intensity": dict(prediction.intensity),
        "prompts": dict(prompts),
        **to_document(options),
        "segments": [dict(segment) for segment in segments],
        "notes": list(notes),
        "timings_s": {name: round(stages[name], 3) for name in ("start", "load", "encode", "decode", "write", "total")},
        "counts": {name: prediction.counts[name] for name in ("encodes", "decodes")},
        "software": software_versions(),
    }


@dataclass(frozen=True, slots=True)
class EarlierReport:
    """A report to repeat.

    Attributes:
        path: its file.
        document: all of it.
        options: what determines the voxels; the usual values for what it does not say.
        missing: the names of what it does not say, as those of earlier versions do not.
    """

    path: Path
    document: Mapping[str, Any]
    options: ResultOptions
    missing: frozenset[str]

    def apply(self, options: argparse.Namespace) -> None:
        """Set the options of the command line that are not given to those of the report.

        Raises:
            InputError: one that is given contradicts the report.
        """
        recorded, propagation = self.options, self.options.propagation
        values = {
            "model": self.document["model"]["id"],
            "device": self.document["device"],
            "intensity": self.document["intensity"]["policy"],
            "frame": recorded.frame,
            "overlap": recorded.overlap,
            "propagate": propagation is not None,
            "propagate_range": propagation and (propagation.start, propagation.stop),
            "propagate_direction": propagation and propagation.direction,
            "hand_over": propagation and propagation.hand_over,
        }
        absent = set(values) if "propagation" in self.missing else set()
        absent = {name for name in absent if name.startswith(("propagate", "hand"))} | self.missing
        conflicts = []
        for name, value in values.items():
            choice = getattr(options, name)
            is_open = choice is None or choice is False or (choice == "auto" and name in ("device", "hand_over"))
            if not is_open and name not in absent and choice != value:
                conflicts.append(name)
            if choice is None and name not in absent:
                setattr(options, name, value)
        self._refuse(conflicts)
        if "propagation" not in self.missing:
            options.propagation = propagation

    def _refuse(self, names: Sequence[str]) -> None:
        if names:
            flags = listed([f"--{name.replace('_', '-')}" for name in names])
            raise InputError(f"{flags}: contradicts {self.path.name}; leave it out, or do without --from-report")

    def prompts(self, options: argparse.Namespace, card: ModelCard) -> PromptSet:
        """Return the prompts of the report, with those that were left out, and with the seeds' files where they are.

        Raises:
            InputError, PromptError: they are no prompts, or prompts of the command line are others.
        """
        document = dict(self.document["prompts"])
        document["segments"] = list(document.get("segments", ()))
        left_out = {int(n): segment for n, segment in (self.options.left_out or {}).items() if n.isdecimal()}
        for number in sorted(left_out):
            document["segments"].insert(number, left_out[number])
        prompts = parse_prompts(document)
        options.sources = [f"{self.path.name}: prompts.segments[{n}]" for n in range(len(prompts.segments))]
        if options.prompts is not None or options.classes or options.text:
            choice = read_prompt_options(options, card)
            if without_folders(choice) != prompts:
                names = ("prompts", "classes", "text", "seed_from")
                self._refuse([name for name in names if getattr(options, name)])
            return choice
        return prompts if options.seed_from is None else self._with_seed_file(prompts, options.seed_from)

    def _with_seed_file(self, prompts: PromptSet, path: Path) -> PromptSet:
        def moved(prompt: MaskPrompt, _: str) -> MaskPrompt:
            return replace(prompt, file=str(path.absolute())) if prompt.file == path.name else prompt

        with_file = change_masks(prompts, moved)
        if with_file == prompts:
            self._refuse(["seed_from"])
        return with_file

    def require_model(self, card: ModelCard) -> None:
        """Make sure that the store has no other checkpoint than that of the report, as far as it can be seen.

        Raises:
            CheckpointError: it has, or the card names another.
        """
        store = Store(default_store_folder())
        here = {"source": card.source.repository, "revision": store.commit(card)}
        self._require_checkpoint({**here, "sha256": store.sha256(card) or card.source.files[0].sha256})

    def _require_checkpoint(self, here: Mapping[str, str]) -> None:
        there = self.document["model"]
        if any(value and value != there[name] for name, value in here.items()):
            raise CheckpointError(
                f"{self.path.name} was made with {there['id']} of {_checkpoint_text(there)}, and here is "
                f"{_checkpoint_text(here)}; bring those files with 'foundationseg models import', or do without "
                "--from-report"
            )

    def require_region(self, region: Box) -> None:
        """Make sure that the region of the command line is that of the report.

        Raises:
            InputError: it is another.
        """
        if "region" not in self.missing and region != self.options.region:
            self._refuse(["roi"])

    @property
    def seen_box(self) -> Box | None:
        """The box that the model saw; None for the whole image, and for several."""
        return self.options.parts[0] if len(self.options.parts) == 1 else self.options.region

    def check_seeds(self, seeds: Sequence[SeedRecord]) -> None:
        """Make sure that mask prompts have the voxels that they had.

        Raises:
            PromptError: one has others.
        """
        for seed, before in zip(seeds, self.options.seeds, strict=False):
            if seed != before:
                raise PromptError(f"{seed.file}: {seed.segment!r} has other voxels than when {self.path.name} was made")

    def compare(
        self, prediction: Prediction, options: ResultOptions, segments: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """Return notes on what is not as it was.

        Raises:
            CheckpointError: another checkpoint answered.
            InputError: the report does not say all that determines the voxels, and they are others.
        """
        checkpoint = prediction.checkpoint.to_document()
        self._require_checkpoint({name: checkpoint[name] for name in ("source", "revision", "sha256")})
        name = self.path.name
        counts = {segment["name"]: segment["voxels"] for segment in segments}
        before = {segment["name"]: segment["voxels"] for segment in self.document["segments"]}
        if counts != before and self.missing:
            raise InputError(
                f"{name} is of an earlier version and does not say {listed(sorted(self.missing))}; with the usual "
                f"values the segments have {_sizes(counts)} voxels, not {_sizes(before)}: add the options of that time"
            )
        now = {
            "the image": (options.image, self.options.image),
            "the device": (prediction.device, self.document["device"]),
            "the precision": (prediction.precision, self.document["precision"]),
            "the intensity": (dict(prediction.intensity), dict(self.document["intensity"])),
            "what the model saw": (options.parts, self.options.parts),
            "the number of voxels": (counts, before),
        }
        if self.missing:  # an earlier version told neither
            del now["the image"], now["what the model saw"]
        changed = [aspect for aspect, (here, there) in now.items() if here != there]
        return [f"not as in {name}: {', '.join(changed)}"] if changed else []


def _checkpoint_text(model: Mapping[str, str]) -> str:
    return f"{model['source']} {model['revision']} (sha256 {model['sha256'][:12]})"


def _sizes(counts: Mapping[str, int]) -> str:
    return listed(list(map(str, counts.values())))


def report_document(path: Path) -> Any:
    """Read the JSON of a report, whatever it holds.

    Raises:
        InputError: it cannot be read, is too long, or is no JSON.
    """
    try:
        if path.stat().st_size > _LONGEST_REPORT:
            raise InputError(f"{path.name} is too long for a report")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is no report: it is no JSON") from error


def read_report(path: Path) -> EarlierReport:
    """Read a report of ``segment``, of this version or an earlier one.

    Raises:
        InputError: it cannot be read, is no such report, or is of a later version.
    """
    document = report_document(path)
    if not isinstance(document, dict) or document.get("command") != "segment":
        raise InputError(f"{path.name} is no report of 'segment'")
    if document.get("version") != 1:
        raise InputError(f"{path.name} is a report of a later version of FoundationSeg: open it with that one")
    if "frames" in document:
        raise InputError(f"{path.name} is a report of all frames; give the same command again instead")
    _require_fields(document, path.name)
    values = {field.name: document[field.name] for field in fields(ResultOptions) if field.name in document}
    missing = frozenset(field.name for field in fields(ResultOptions)) - set(values)
    try:
        options = from_document(ResultOptions, {"image": "", **values}, path.name)
    except DocumentError as error:
        raise InputError(str(error)) from error
    return EarlierReport(path, document, options, missing)


_FIELDS: Mapping[str, type] = {
    "model.id": str,
    "model.source": str,
    "model.revision": str,
    "model.sha256": str,
    "device": str,
    "precision": str,
    "intensity.policy": str,
    "prompts.segments": list,
    "segments": list,
}


def _require_fields(document: Mapping[str, Any], name: str) -> None:
    for field, kind in _FIELDS.items():
        value: Any = document
        for key in field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise InputError(f"{name} does not say {field}, so that it cannot be repeated")
    for n, segment in enumerate(document["segments"]):
        if not isinstance(segment, dict) or not {"name", "voxels"} <= set(segment):
            raise InputError(f"{name} does not say segments[{n}].voxels, so that it cannot be repeated")
