"""Confirmation edits: actions that no model has answered yet, and answers on their way to the segments."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..imaging.geometry import EMPTY_BOX, Box, Geometry
from ..imaging.masks import (
    EMPTY_MASK,
    Edit,
    MaskTable,
    PackedMask,
    SegmentChange,
    change_between,
    cut_out,
    merge_masks,
    pack_mask,
)
from ..prompts.kinds import WORDS, Prompt, SegmentPrompts, bare
from ..prompts.placement import require_inside
from ..prompts.prompts_file import prompt_to_document
from ..requests.segmentation import Prediction, PredictRequest, Propagation, SegmentPrediction
from .plan import Plan, plan
from .segment_state import Record, RecordState
from .segment_store import Confirmation, NewSegment, OverlapPolicy, SegmentStore
from .steps import (
    ModelChoice,
    PolarityChanged,
    PromptAdded,
    PromptMoved,
    PropagateStep,
    RegionStep,
    SeedReason,
    SegmentState,
    SettingsStep,
    Steps,
    WithheldStep,
    going_on,
    state_of,
    transformed_steps,
)
from .undo_stack import Entry


@dataclass(frozen=True, slots=True)
class PendingEdit:
    """Something that was done to one or several segments at once.

    Attributes:
        intents: the steps that it means, by the ids of segments.
        choice: the model that is to answer.
        is_replay: the intents are all steps of the segment, and take the place of those that it has.
        is_asked_again: the replay is not of what was written once, but asks anew: what holds for prompts holds for it.
    """

    intents: Mapping[str, Steps]
    choice: ModelChoice | None
    is_replay: bool = False
    is_asked_again: bool = False

    def merged(self, later: "PendingEdit") -> "PendingEdit | None":
        """Both in one, or None where the later one has to wait for the answer to this one."""
        if self.is_replay or later.is_replay or self.choice != later.choice:
            return None
        for target, steps in self.intents.items():
            is_done = any(isinstance(step, PropagateStep | RegionStep) for step in steps)
            if target in later.intents and (is_done or any(isinstance(s, RegionStep) for s in later.intents[target])):
                return None
        intents = dict(self.intents)
        for target, steps in later.intents.items():
            intents[target] = (*intents.get(target, ()), *steps)
        return PendingEdit(intents, self.choice)

    def transformed(self, matrix: NDArray[np.float64]) -> "PendingEdit":
        """The same with its prompts moved by a (4, 4) matrix in RAS mm."""
        intents = {target: transformed_steps(steps, matrix) for target, steps in self.intents.items()}
        return replace(self, intents=intents)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An action on one segment, ready to be asked.

    Attributes:
        target: the id of the segment.
        before: its state now.
        steps: all steps that it will have, and ``after``, what they come to.
        plan: what is to be asked and done.
        is_settled: True where the present voxels became the seed just now.
        keeps_seed: True where the seed is the one that it was.
    """

    target: str
    before: RecordState
    steps: Steps
    after: SegmentState
    plan: Plan
    is_settled: bool
    keeps_seed: bool


def prepare(
    action: PendingEdit,
    records: Mapping[str, Record],
    masks: MaskTable,
    geometry: Geometry,
    names: Mapping[str, str],
) -> tuple[Prepared, ...]:
    """What an action comes to where the segments stand now.

    Raises:
        InputError: it names a prompt that is not there, or no model was chosen.
        PromptError: a prompt lies outside the image, or there is nothing to propagate.
    """
    found = []
    for target, intents in action.intents.items():
        record = records[target]
        before = record.state
        settled: Steps = ()
        if action.is_replay:
            steps, after = intents, state_of(intents)
        else:
            for step in intents:
                if isinstance(step, PromptAdded | PromptMoved):
                    require_inside(step.prompt, geometry)  # models of volumes are asked about slices later, perhaps
            now = before.standing
            reason = _reason_to_settle(now, intents, action.choice)
            if reason is not None:
                settled = record.seeded(masks, reason).steps[-1:]
            settings = (SettingsStep(action.choice),) if _needs(now, intents, action.choice) else ()
            more = (*settled, *settings, *intents)
            steps, after = (*before.steps, *more), going_on(now, more)
        made = plan(after, masks, geometry, names[target])
        found.append(Prepared(target, before, steps, after, made, bool(settled), after.seed == before.standing.seed))
    return tuple(found)


def _needs(now: SegmentState, intents: Steps, choice: ModelChoice | None) -> bool:
    asks = any(isinstance(step, PromptAdded | PromptMoved | PolarityChanged | PropagateStep) for step in intents)
    return asks and choice is not None and choice != now.choice


def _reason_to_settle(now: SegmentState, intents: Steps, choice: ModelChoice | None) -> SeedReason | None:
    """Why the present voxels have to become the seed before the next steps; None where they need not."""
    if not now.is_computed:
        return None
    if any(isinstance(step, RegionStep) for step in intents) or now.region is not None:
        return "region"
    if _needs(now, intents, choice):
        return "model"
    if now.propagation is not None or any(isinstance(step, PropagateStep) for step in intents):
        return "propagated"
    return None


@dataclass(slots=True)
class Batch:
    """What is asked in one request.

    Attributes:
        actions: what it is for.
        prepared: the segments of each of them.
        request: what the model is asked; None where nothing has to be asked.
    """

    actions: tuple[PendingEdit, ...]
    prepared: tuple[tuple[Prepared, ...], ...]
    request: PredictRequest | None = None
    asked: tuple[str, ...] = field(default=())

    @property
    def targets(self) -> tuple[str, ...]:
        """All segments, in order."""
        return tuple(one.target for action in self.prepared for one in action)


# The last are the segments that are asked by words: classes that are asked together share no voxel, so that the answer
# would depend on what happened to wait at the same time.
Signature = tuple[ModelChoice, Propagation | None, Box | None, tuple[str, ...]]


def signature(prepared: Sequence[Prepared]) -> Signature | None:
    """What actions must have in common to be asked together; None for one that asks nothing.

    Raises:
        PromptError: the segments of one action cannot be asked together.
    """
    asked = [one.plan for one in prepared if one.plan.prompts]
    words = tuple(one.target for one in prepared if any(isinstance(p, WORDS) for p in one.plan.prompts))
    found = {(one.choice, one.propagation, one.seen, words) for one in asked if one.choice is not None}
    if len(found) > 1:
        what = "propagated differently" if len({one.propagation for one in asked}) > 1 else "seen in different regions"
        raise PromptError(f"segments that are {what} cannot be asked together: do one after the other")
    return next(iter(found), None)


def ask(batch: Batch, request_id: int, volume_key: str, names: Mapping[str, str]) -> Batch:
    """The batch with its request."""
    asked = [one for action in batch.prepared for one in action if one.plan.prompts]
    if not asked:
        return batch
    choice = asked[0].plan.choice
    segments = tuple(SegmentPrompts(names[one.target], one.plan.prompts) for one in asked)
    request = PredictRequest(
        request_id,
        choice.model_id if choice else "",
        volume_key,
        segments,
        choice.intensity if choice else "auto",
        asked[0].plan.propagation,
        asked[0].plan.seen,
    )
    return Batch(batch.actions, batch.prepared, request, tuple(one.target for one in asked))


def request_names(targets: Iterable[str], store: SegmentStore) -> Mapping[str, str]:
    """Names for a request, each once and none empty: what the user calls segments need be neither."""
    found: dict[str, str] = {}
    for target in targets:
        name = plain = store.name(target).replace("\0", "").strip() or "Segment"
        number = 1
        while name in found.values():
            number += 1
            name = f"{plain} ({number})"
        found[target] = name
    return found


_CORRECTING = (PromptAdded, PolarityChanged, PropagateStep)


@dataclass(frozen=True, slots=True)
class Computed:
    """An answer put together with what is there.

    Attributes:
        prepared: what it answers.
        answer: the model's answer; an empty one where nothing was asked.
        change: what it comes to.
        reach: the box outside which the segment will be its seed.
    """

    prepared: Prepared
    answer: SegmentPrediction
    change: SegmentChange
    reach: Box


def compute(one: Prepared, answer: SegmentPrediction, store: SegmentStore, records: Mapping[str, Record]) -> Computed:
    """What an answer would change. Looks only where the segment may differ from what it is now."""
    combination = one.plan.combination
    reach = combination.reach(answer.mask)
    record, box = records[one.target], reach
    if record.state is not one.before or not (one.is_settled or one.keeps_seed):
        box = reach.union(combination.seed.box).union(record.known.mask().box)
    elif one.keeps_seed:
        box = reach.union(one.before.reach)
    present, wanted = store.read(one.target, box), combination.result(answer.mask, box)
    return Computed(one, answer, change_between(present, wanted, box.start_kji), reach)


def renewed(computed: Computed, store: SegmentStore, records: Mapping[str, Record]) -> Computed:
    """The same where a neighbour, written just before, took voxels of the segment: they are wanted back."""
    target = computed.prepared.target
    if records[target].state is computed.prepared.before:
        return computed
    return compute(computed.prepared, computed.answer, store, records)


def warning(
    action: PendingEdit, computed: Sequence[Computed], records: Mapping[str, Record], masks: MaskTable, ask_above: float
) -> Confirmation | None:
    """What to ask before writing; None where nothing has to be asked."""
    share, by_hand, changes = 0.0, 0, {}
    for one in computed:
        target = one.prepared.target
        changes[target] = one.change
        asked_for = _asked_for(action, target)
        if asked_for == "nothing":
            continue
        if asked_for == "all":
            share = max(share, one.change.lost.voxels / max(1, records[target].known.voxels))
        keys = dict.fromkeys((*one.prepared.before.standing.hand, *one.prepared.after.hand))
        hand = [masks.get(key) for key in keys]
        by_hand += sum(_common(one.change.gained, mask) + _common(one.change.lost, mask) for mask in hand)
    return Confirmation(changes, share, by_hand) if share > ask_above or by_hand else None


def _asked_for(action: PendingEdit, target: str) -> Literal["nothing", "hand", "all"]:
    """What to ask for before: a prompt that is moved takes its effect along, which nobody has to be asked for."""
    if action.is_replay:
        return "all" if action.is_asked_again else "nothing"
    steps = action.intents[target]
    if any(isinstance(step, _CORRECTING) for step in steps):
        return "all"
    return "hand" if any(isinstance(step, PromptMoved) for step in steps) else "nothing"


def _common(one: PackedMask, other: PackedMask) -> int:
    box = one.box.intersection(other.box)
    return 0 if box.is_empty else int(np.count_nonzero(cut_out(one, box) & cut_out(other, box)))


@dataclass(slots=True)
class Writing:
    """One action as it is written: what is kept for undoing it, and what is told of it.

    ``created`` are the segments that were made for it.
    """

    store: SegmentStore
    records: dict[str, Record]
    masks: MaskTable
    edits: list[Edit] = field(default_factory=list)
    before: dict[str, RecordState] = field(default_factory=dict)
    after: dict[str, RecordState] = field(default_factory=dict)
    changes: dict[str, tuple[SegmentChange, ...]] = field(default_factory=dict)
    created: dict[str, NewSegment] = field(default_factory=dict)

    @property
    def entry(self) -> Entry[RecordState]:
        """What the history keeps."""
        return Entry(tuple(self.edits), self.before, self.after, self.created)

    def write(self, one: Computed, policy: OverlapPolicy, provenance: Mapping[str, str] | None) -> str:
        """Write a segment and follow what that did to others; returns the segment's id.

        Raises:
            InputError: the segment is locked; nothing is written then.
        """
        segment_id = one.prepared.target
        edit = self.store.write(segment_id, one.change, policy)
        self._follow(edit)
        state = replace(
            self.records[segment_id].state, steps=one.prepared.steps, standing=one.prepared.after, reach=one.reach
        )
        withheld = self._withheld(one, edit.changes.get(segment_id, SegmentChange()))
        if withheld is not None:
            state = state.with_steps(withheld)
        if provenance is not None:
            state = replace(state, provenance=provenance)
        self._set(segment_id, state)
        for other in edit.changes.keys() - {segment_id}:
            if other in self.records:
                seeded = self.records[other].seeded(self.masks, "neighbour")
                self._set(other, replace(seeded, reach=EMPTY_BOX))
        return segment_id

    def _set(self, segment_id: str, state: RecordState) -> None:
        self.before.setdefault(segment_id, self.records[segment_id].state)
        self.after[segment_id] = self.records[segment_id].state = state

    def _follow(self, edit: Edit) -> None:
        if edit.changes:
            self.edits.append(edit)
        follow(edit, self.records)
        for segment_id, change in edit.changes.items():
            self.changes[segment_id] = (*self.changes.get(segment_id, ()), change)

    def _withheld(self, one: Computed, real: SegmentChange) -> WithheldStep | None:
        """What of the wanted change was kept back, with what a replay kept back already; None if nothing was."""
        denied = _missing(one.change.gained, real.gained)
        retained = _missing(one.change.lost, real.lost)
        if denied.box.is_empty and retained.box.is_empty:
            return None
        combination = one.prepared.plan.combination
        keys = (merge_masks((denied, combination.denied)), merge_masks((retained, combination.retained)))
        return WithheldStep(*(self.masks.put(mask) for mask in keys))


def follow(edit: Edit, records: Mapping[str, Record]) -> None:
    """Have the records know what an edit did."""
    for segment_id, change in edit.changes.items():
        if segment_id in records:
            records[segment_id].known.take(change)


def _missing(wanted: PackedMask, real: PackedMask) -> PackedMask:
    if wanted is real or wanted.voxels == real.voxels:
        return EMPTY_MASK
    return pack_mask(cut_out(wanted, wanted.box) & ~cut_out(real, wanted.box), wanted.box.start_kji)


def provenance_of(prediction: Prediction, one: Prepared, version: str) -> dict[str, str]:
    """Where a predicted segment comes from, by the names of :data:`~.segment_store.PROVENANCE`."""
    checkpoint = prediction.checkpoint
    found = {
        "Model": checkpoint.model_id,
        "Repository": checkpoint.source,
        "Revision": checkpoint.revision,
        "SHA256": checkpoint.sha256,
        "Prompts": f"[{', '.join(_prompt_text(bare(held.prompt)) for held in one.after.prompts)}]",
        "Intensity": json.dumps(dict(prediction.intensity)),
    }
    return found | ({"Version": version} if version else {})


@lru_cache(maxsize=1024)
def _prompt_text(prompt: Prompt) -> str:
    """A prompt without voxels as JSON text: a segment's are written again after each change."""
    return json.dumps(prompt_to_document(prompt))
