"""Actions: what the user did and no model has answered yet, in order, and which of it can be asked together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .errors import PromptError
from .geometry import Box, Geometry
from .mask_table import MaskTable
from .plan import Plan, plan
from .prompts import SegmentPrompts
from .records import Record, RecordState
from .requests import PredictRequest, Propagation
from .segment_store import SegmentStore
from .steps import (
    ModelChoice,
    PolarityChanged,
    PromptAdded,
    PromptMoved,
    PropagateStep,
    RegionStep,
    SeedReason,
    SettingsStep,
    Standing,
    Steps,
    going_on,
    standing,
)


@dataclass(frozen=True, slots=True)
class Action:
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

    def merged(self, later: "Action") -> "Action | None":
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
        return Action(intents, self.choice)


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
    after: Standing
    plan: Plan
    is_settled: bool
    keeps_seed: bool


def prepare(
    action: Action,
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
            steps, after = intents, standing(intents)
        else:
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


def _needs(now: Standing, intents: Steps, choice: ModelChoice | None) -> bool:
    asks = any(isinstance(step, PromptAdded | PromptMoved | PolarityChanged | PropagateStep) for step in intents)
    return asks and choice is not None and choice != now.choice


def _reason_to_settle(now: Standing, intents: Steps, choice: ModelChoice | None) -> SeedReason | None:
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

    actions: tuple[Action, ...]
    prepared: tuple[tuple[Prepared, ...], ...]
    request: PredictRequest | None = None
    asked: tuple[str, ...] = field(default=())

    @property
    def targets(self) -> tuple[str, ...]:
        """All segments, in order."""
        return tuple(one.target for action in self.prepared for one in action)


Signature = tuple[ModelChoice, Propagation | None, Box | None]


def signature(prepared: Sequence[Prepared]) -> Signature | None:
    """What actions must have in common to be asked together; None for one that asks nothing.

    Raises:
        PromptError: the segments of one action cannot be asked together.
    """
    asked = [one.plan for one in prepared if one.plan.prompts]
    found = {(one.choice, one.propagation, one.seen) for one in asked if one.choice is not None}
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
