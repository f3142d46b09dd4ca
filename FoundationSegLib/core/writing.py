"""From answers to written segments: what would change, whether to ask first, and the change itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from .actions import Action, Prepared
from .combination import cut_out
from .geometry import EMPTY_BOX, Box
from .history import Entry
from .mask import EMPTY_MASK, Edit, PackedMask, SegmentChange, change_between, merge_masks, pack_mask
from .mask_table import MaskTable
from .outcomes import Pending
from .overlap import OverlapPolicy
from .prompts import Prompt, bare
from .prompts_document import prompt_to_document
from .records import Record, RecordState
from .requests import Prediction, SegmentPrediction
from .segment_store import NewSegment, SegmentStore
from .steps import PolarityChanged, PromptAdded, PromptMoved, PropagateStep, WithheldStep

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
    action: Action, computed: Sequence[Computed], records: Mapping[str, Record], masks: MaskTable, ask_above: float
) -> Pending | None:
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
    return Pending(changes, share, by_hand) if share > ask_above or by_hand else None


def _asked_for(action: Action, target: str) -> Literal["nothing", "hand", "all"]:
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
