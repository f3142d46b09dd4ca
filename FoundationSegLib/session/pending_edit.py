"""Pending edits: prompts that no model has answered yet, and answers on their way to the segments."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FoundationSegError, OutputError, PromptError
from ..imaging.geometry import Box
from ..imaging.masks import MaskTable, PackedMask, cut_out
from ..prompts.kinds import WORDS, BoxPrompt, SegmentPrompts
from ..prompts.placement import require_inside
from ..requests.segmentation import Prediction, PredictRequest, Propagation
from . import steps as session_steps
from .plan import AnsweredPlan, SegmentPlan, SliceParts, plan_segment
from .segment_store import Confirmation, SegmentStore
from .tracking import TrackedSegment

# The part of a correction by hand that a prompt may change without a question.
_FEW_BY_HAND = 0.05
_ASKING: frozenset[type[session_steps.Step]] = frozenset(
    {session_steps.PromptAdded, session_steps.PromptMoved, session_steps.PolarityChanged, session_steps.PropagateStep}
)


@dataclass(slots=True, eq=False)
class PendingEdit:
    """Steps of one or several segments, taken at once and not written yet.

    Attributes:
        steps: what was done, by the ids of segments.
        choice: the model that is to answer.
        is_replay: the steps are all steps of the segment, and take the place of those that it has.
        is_asked_again: the replay is not of what was written once, but asks anew: what holds for prompts holds for it.
        plans: what is to be done for each segment; made by :func:`make_plans`.
    """

    steps: Mapping[str, session_steps.Steps]
    choice: session_steps.ModelChoice | None
    is_replay: bool = False
    is_asked_again: bool = False
    plans: tuple[SegmentPlan, ...] = ()

    def merged(self, later: "PendingEdit") -> "PendingEdit | None":
        """Both in one, or None where the later one has to wait for the answer to this one."""
        if self.is_replay or later.is_replay or self.choice != later.choice:
            return None
        for segment_id in self.steps.keys() & later.steps.keys():
            before, after = set(map(type, self.steps[segment_id])), set(map(type, later.steps[segment_id]))
            if session_steps.PropagateStep in before or session_steps.RegionStep in before | after:
                return None
        steps = dict(self.steps)
        for segment_id, more in later.steps.items():
            steps[segment_id] = (*steps.get(segment_id, ()), *more)
        return PendingEdit(steps, self.choice)

    def part(self, segment_ids: Collection[str]) -> "PendingEdit":
        """The same for some of its segments."""
        steps = {segment_id: steps for segment_id, steps in self.steps.items() if segment_id in segment_ids}
        return PendingEdit(steps, self.choice, self.is_replay, self.is_asked_again)

    def transformed(self, matrix: NDArray[np.float64]) -> "PendingEdit":
        """The same with its prompts moved by a (4, 4) matrix in RAS mm."""
        steps = {segment_id: session_steps.transformed_steps(steps, matrix) for segment_id, steps in self.steps.items()}
        return PendingEdit(steps, self.choice, self.is_replay, self.is_asked_again)

    def after(self, state: session_steps.SegmentState, segment_id: str) -> session_steps.SegmentState:
        """The state of a segment after this edit."""
        steps = self.steps.get(segment_id, ())
        return session_steps.state_of(steps) if self.is_replay and steps else state.after(*steps)


@dataclass(slots=True, eq=False)
class AskedEdits:
    """Edits that are asked together: their request is out, or their answer waits to be confirmed.

    Attributes:
        edits: what is asked for.
        plans: for each edit, those that the request was made of.
        request: what the model is asked; None where nothing has to be asked.
        prediction: the answer, once it is there; None where no model was asked.
        answers: for each edit, what its answer comes to; None while the answer is out.
        confirmation: what has to be confirmed first.
    """

    edits: tuple[PendingEdit, ...]
    plans: list[tuple[SegmentPlan, ...]]
    request: PredictRequest | None
    prediction: Prediction | None = None
    answers: list[list[AnsweredPlan]] | None = None
    confirmation: Confirmation | None = None


def merged_queue(queue: list[PendingEdit], edit: PendingEdit) -> tuple[list[PendingEdit], PendingEdit]:
    """A queue with one edit more, and the edit as it stands there: merged with what it goes on from."""
    for index in reversed(range(len(queue))):
        if not queue[index].steps.keys().isdisjoint(edit.steps):
            merged = queue[index].merged(edit)
            if merged is not None:
                return [*queue[:index], merged, *queue[index + 1 :]], merged
            break
    return [*queue, edit], edit


def make_plans(
    edit: PendingEdit,
    segments: Mapping[str, TrackedSegment],
    masks: MaskTable,
    placed: SliceParts,
) -> tuple[SegmentPlan, ...]:
    """Plan what an edit comes to where the segments stand now.

    Raises:
        InputError: it names a prompt that is not there, or no model was chosen.
        PromptError: a prompt lies outside the image, or there is nothing to propagate.
    """
    plans = []
    for segment_id, steps in edit.steps.items():
        segment, settled = segments[segment_id], ()
        if edit.is_replay:
            after = session_steps.state_of(steps)
        else:
            for step in steps:
                if not isinstance(step, session_steps.PromptAdded | session_steps.PromptMoved):
                    continue
                if not isinstance(step.prompt, BoxPrompt) or placed[step.prompt] is None:
                    require_inside(step.prompt, placed.geometry)  # models of volumes are asked about slices later, too
            kinds = set(map(type, steps))
            # Another model is asked than before; one is needed, too, to take back prompts that none answered.
            asks = not kinds.isdisjoint(_ASKING) or (
                segment.state.choice is None and session_steps.PromptRemoved in kinds
            )
            needs_choice = asks and edit.choice is not None and edit.choice != segment.state.choice
            # Why the present voxels have to become the seed before the next steps.
            reason: session_steps.SeedReason | None = None
            if session_steps.RegionStep in kinds or segment.state.region is not None:
                reason = "region"
            elif needs_choice:
                reason = "model"
            elif segment.state.propagation is not None or session_steps.PropagateStep in kinds:
                reason = "propagated"
            settled = (
                (session_steps.SeedStep(masks.put(segment.mask()), reason),)
                if reason and segment.state.is_computed
                else ()
            )
            settings = (session_steps.SettingsStep(edit.choice),) if edit.choice is not None and needs_choice else ()
            after = segment.state.after(*settled, *settings, *steps)
        plans.append(plan_segment(segment_id, segment.state, after, bool(settled), masks, placed))
    return tuple(plans)


# The last are the segments that are asked by words: classes that are asked together share no voxel, so that the answer
# would depend on what happened to wait at the same time.
Signature = tuple[session_steps.ModelChoice, Propagation | None, Box | None, tuple[str, ...]]


def signature(plans: Sequence[SegmentPlan]) -> Signature | None:
    """The part of a request that edits must have in common to be asked together; None for one that asks nothing.

    Raises:
        PromptError: the segments of one edit cannot be asked together.
    """
    found: set[Signature] = set()
    asking = [plan for plan in plans if plan.prompts]
    words = tuple([plan.segment_id for plan in asking if not {*map(type, plan.prompts)}.isdisjoint(WORDS)])
    for plan in asking:
        if plan.after.choice is not None:
            found.add((plan.after.choice, plan.propagation, plan.seen, words))
    if len(found) > 1:
        is_propagated = len({propagation for _, propagation, _, _ in found}) > 1
        difference = "propagated differently" if is_propagated else "seen in different regions"
        raise PromptError(f"segments that are {difference} cannot be asked together: do one after the other")
    return found.pop() if found else None


def make_request(
    plans: Iterable[Sequence[SegmentPlan]], request_id: int, volume_key: str, store: SegmentStore
) -> PredictRequest | None:
    """The request of plans that have one signature; None where nothing has to be asked.

    Each segment has a name of its own in it, and none is empty: what the user calls segments need be neither.
    """
    asked: dict[str, SegmentPrompts] = {}
    first: SegmentPlan | None = None
    for plan in itertools.chain.from_iterable(plans):
        if plan.prompts:
            first = first or plan
            name = plain = store.name(plan.segment_id).replace("\0", "").strip() or "Segment"
            number = 1
            while name in asked:
                number += 1
                name = f"{plain} ({number})"
            asked[name] = SegmentPrompts(name, plan.prompts)
    if first is None or first.after.choice is None:
        return None
    choice, segments = first.after.choice, tuple(asked.values())
    return PredictRequest(
        request_id, choice.model_id, volume_key, segments, choice.intensity, first.propagation, first.seen
    )


def nameless(request: PredictRequest | None) -> PredictRequest | None:
    """A request without the names of its segments, which no answer depends on: a user may rename them meanwhile."""
    return request and replace(request, segments=tuple(replace(segment, name="") for segment in request.segments))


def confirmation_of(
    edit: PendingEdit,
    answers: Sequence[AnsweredPlan],
    segments: Mapping[str, TrackedSegment],
    masks: MaskTable,
    ask_above: float,
) -> Confirmation | None:
    """The question before writing; None where nothing has to be asked.

    A prompt that is moved takes its effect along, and what is written once more was agreed on: of these, only voxels
    that were drawn by hand are asked for, or nothing. Few of these are not asked for: smoothing by hand touches the
    whole border of a segment, and any prompt beside it some voxels of that.
    """
    share, by_hand, most = 0.0, 0, 0.0
    for answered in answers:
        plan, change = answered.plan, answered.change
        kinds = set(map(type, edit.steps[plan.segment_id]))
        is_correction = not kinds.isdisjoint(
            {session_steps.PromptAdded, session_steps.PolarityChanged, session_steps.PropagateStep}
        )
        asks_for_all = edit.is_asked_again if edit.is_replay else is_correction
        if asks_for_all:
            share = max(share, change.lost.voxels / max(1, segments[plan.segment_id].voxels))
        if asks_for_all or (not edit.is_replay and session_steps.PromptMoved in kinds):
            for key in dict.fromkeys((*plan.before.hand, *plan.after.hand)):
                drawn = masks.get(key)
                changed = _common(change.gained, drawn) + _common(change.lost, drawn)
                by_hand, most = by_hand + changed, max(most, changed / max(1, drawn.voxels))
    if share <= ask_above and most <= _FEW_BY_HAND:
        return None
    return Confirmation({answered.plan.segment_id: answered.change for answered in answers}, share, by_hand)


def _common(mask: PackedMask, other: PackedMask) -> int:
    box = mask.box.intersection(other.box)
    return 0 if box.is_empty else int(np.count_nonzero(cut_out(mask, box) & cut_out(other, box)))


def as_our_error(error: Exception) -> FoundationSegError:
    """An error that users can be told of."""
    if isinstance(error, FoundationSegError):
        return error
    return OutputError(f"the segments could not be read or written: {type(error).__name__}: {error}")
