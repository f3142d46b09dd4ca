"""Segments of a session: one for scripts and panels, many at once, and edits that no model is asked for."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..catalog.model_cards import ModelCard
from ..codec import frozen
from ..errors import FoundationSegError, InputError
from ..imaging.masks import Edit, SegmentChange, pack_mask, without_mask
from ..prompts.capabilities import segments_by_name
from ..prompts.kinds import Polarity, Prompt, PromptSet, SegmentPrompts
from ..prompts.placement import prompts_in_ras
from ..prompts.regions import AroundPrompt, Region
from ..requests.segmentation import Propagation
from . import steps as session_steps
from .pending_edit import PendingEdit
from .segment_history import SegmentHistory
from .segment_store import EditKind, NewSegment, OverlapPolicy, SegmentEdited, UserOptions
from .session import Session
from .steps import SegmentState, WithheldStep
from .tracking import UndoEntry, changes_of


@frozen
class SegmentSession:
    """A segment of a session. Holds nothing itself: any number of these may stand for the same segment.

    Every change asks the model again. All methods that change something raise what :meth:`.session.Session.add` raises.
    """

    session: Session
    segment_id: str

    @property
    def steps(self) -> session_steps.Steps:
        """All steps of the segment, written ones first, then those that wait for an answer."""
        return self.session.steps(self.segment_id)

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """The prompts by their keys, in the order in which they were first given."""
        return {active.key: active.prompt for active in session_steps.state_of(self.steps).prompts}

    def to_document(self) -> dict[str, Any]:
        """The steps as JSON values, for :meth:`replay_document`."""
        return session_steps.steps_to_document(self.steps, self.session.history.masks)

    def add(self, *prompts: Prompt) -> tuple[str, ...]:
        """Give prompts, together; returns their keys."""
        first = self.session.next_key(self.segment_id)
        keys = tuple(map(str, range(first, first + len(prompts))))
        if keys:
            steps = tuple(map(session_steps.PromptAdded, keys, prompts))
            self.session.add(PendingEdit({self.segment_id: steps}, self.session.options.choice))
        return keys

    def remove(self, *keys: str) -> None:
        """Take prompts back, whichever they are. What they added goes, unless it became the seed meanwhile."""
        self._add(*(session_steps.PromptRemoved(key) for key in keys))

    def move(self, key: str, prompt: Prompt) -> None:
        """Put a prompt elsewhere, or change it in any other way."""
        self._add(session_steps.PromptMoved(key, prompt))

    def set_polarity(self, key: str, polarity: Polarity) -> None:
        """Make a prompt positive or negative."""
        self._add(session_steps.PolarityChanged(key, polarity))

    def flip(self, *keys: str) -> None:
        """Make positive prompts negative, and negative ones positive."""
        for key in keys:
            is_positive = self.prompts[key].polarity is Polarity.POSITIVE
            self.set_polarity(key, Polarity.NEGATIVE if is_positive else Polarity.POSITIVE)

    def propagate(self, propagation: Propagation | None = None) -> None:
        """Carry on what was found on slices. Slices that were corrected, by hand or by prompts, stay as they are."""
        self._add(session_steps.PropagateStep(propagation or Propagation()))

    def limit(self, region: Region | None) -> None:
        """Limit what comes to a region, if it is not limited so already; None: not any more."""
        if session_steps.state_of(self.steps).region != region:
            self._add(session_steps.RegionStep(region))

    def ask_again(self, choice: session_steps.ModelChoice) -> None:
        """Ask another model, or another version, with the same prompts; corrections by hand are asked for first."""
        self._replace(session_steps.restated(self.steps, choice), is_asked_again=True)

    def replay(self, steps: session_steps.Steps) -> None:
        """Put other steps in the place of the segment's own, for example those of an earlier session."""
        if not steps:
            raise InputError("there are no steps to replay")
        self._replace(steps)

    def replay_document(self, document: object) -> None:
        """Replay the steps of :meth:`to_document`, of this session or of another one.

        Raises:
            InputError, PromptError: the document is damaged.
        """
        self.replay(session_steps.parse_steps(document, self.session.history.masks))

    def _replace(self, steps: session_steps.Steps, is_asked_again: bool = False) -> None:
        self.session.add(PendingEdit({self.segment_id: steps}, self.session.options.choice, True, is_asked_again))

    def _add(self, *steps: session_steps.Step) -> None:
        if steps:
            self.session.add(PendingEdit({self.segment_id: steps}, self.session.options.choice))


def new_segment(session: Session, name: str) -> SegmentSession:
    """A new, empty segment; its term and colour go by its name. Undoing takes it away again."""
    return SegmentSession(session, session.create(NewSegment(name, name)))


def next_segment(session: Session, kind: str = "Segment") -> SegmentSession:
    """A new, empty segment with the next free number behind its name: ``Lesion 1``, ``Lesion 2``, ..."""
    new = _numbered(session, kind, 1)[0]
    return SegmentSession(session, session.create(new))


def free_segment(session: Session, kind: str) -> NewSegment:
    """A segment to be made that is called as it is, or that has the next free number where that name is taken."""
    is_taken = kind in {session.segment_name(segment_id) for segment_id in session.segment_ids}
    return _numbered(session, kind, 1)[0] if is_taken else NewSegment(kind, kind)


def add_to_segments(session: Session, steps: Sequence[tuple[NewSegment | str, session_steps.Steps]]) -> tuple[str, ...]:
    """Take steps of segments at once; those that are new are made now, and go again if it is discarded.

    Returns the ids, in order. Nothing is made where it makes no sense. Raises as :meth:`.session.Session.add`.
    """
    made: dict[str, session_steps.Steps] = {}
    try:
        for target, more in steps:
            made[target if isinstance(target, str) else session.history.announce(target)] = more
        if made:
            session.add(PendingEdit(made, session.options.choice))
    except FoundationSegError:
        session.history.withdraw_provisional(made.keys() - session.queued_targets())
        raise
    return tuple(made)


def add_objects(
    session: Session, prompts: Sequence[Prompt], kind: str = "Lesion", region: Region | None = None, group: str = ""
) -> tuple[str, ...]:
    """One prompt for each object makes one numbered segment each, in one request: slices are encoded once.

    The segments are there at once, empty, with their prompts, and keep to a region and belong to a group if one is
    named; undoing takes all of them away again. Returns their ids. Raises as :meth:`.session.Session.add`.
    """
    limit, new = _limit(None, region), [replace(new, group=group) for new in _numbered(session, kind, len(prompts))]
    steps = ((*limit, session_steps.PromptAdded("1", prompt)) for prompt in prompts)
    return add_to_segments(session, list(zip(new, steps, strict=True)))


def import_prompts(session: Session, prompts: PromptSet, region: Region | None = None) -> tuple[str, ...]:
    """Give all prompts of a prompts file, together: to segments of these names, which are made where there are none.

    The segments keep to a region if one is given. One segment after the other where the model sees what is around the
    prompts of each. Returns the ids of the segments, in order. Raises as :meth:`.session.Session.add`.
    """
    intents = []
    known = {session.segment_name(key): key for key in reversed(session.segment_ids)}
    for segment in prompts_in_ras(prompts, session.volume.geometry).segments:
        target = known.get(segment.name) or NewSegment(segment.name, segment.name)
        first, before = 1, None
        if isinstance(target, str):
            before = session_steps.state_of(session.steps(target)).region
            first = session.next_key(target)
        limit = _limit(before, region)
        steps = tuple(session_steps.PromptAdded(str(first + n), prompt) for n, prompt in enumerate(segment.prompts))
        intents.append((target, (*limit, *steps)))
    choice = session.options.choice
    if choice is not None and isinstance(choice.region, AroundPrompt):
        return tuple(segment_id for steps in intents for segment_id in add_to_segments(session, [steps]))
    return add_to_segments(session, intents)


def add_named(
    session: Session,
    card: ModelCard,
    classes: Sequence[str] = (),
    texts: Sequence[str] = (),
    region: Region | None = None,
) -> tuple[str, ...]:
    """A segment for each class and each text, all in one request: the model looks at the image once.

    Segments of these names are used where there are any. Returns their ids, in order. Raises as
    :func:`~FoundationSegLib.prompts.capabilities.segments_by_name` and :meth:`.session.Session.add`.
    """
    named = segments_by_name(card, classes, texts)
    return import_prompts(session, PromptSet(named), region) if named else ()


def add_prompt(session: Session, segment_id: str, prompt: Prompt, options: UserOptions) -> str:
    """Give a segment a prompt; a new one where there is none of that id, or each object is to have its own.

    Returns the id of the segment that has it. Raises as :meth:`.session.Session.add`.
    """
    if options.many_objects and prompt.polarity is Polarity.POSITIVE:
        return add_objects(session, (prompt,), options.new_name, options.region)[0]
    if segment_id in session.segment_ids:
        segment = SegmentSession(session, segment_id)
        segment.limit(options.region)
        segment.add(prompt)
        return segment_id
    steps = (*_limit(None, options.region), session_steps.PromptAdded("1", prompt))
    return add_to_segments(session, [(free_segment(session, options.new_name), steps)])[0]


def add_words(
    session: Session, card: ModelCard | None, words: Sequence[str], region: Region | None = None
) -> tuple[str, ...]:
    """A segment for each word, as :func:`add_named`: class names where the model knows classes, texts otherwise.

    Raises:
        InputError: the model understands no words, or there are none.
    """
    if card is None or not (card.takes("class") or card.takes("text")):
        raise InputError("this model understands no words: choose one that does, or draw")
    names = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not names:
        raise InputError("write what to segment first")
    by_class = "class" in card.prompts or not card.takes("text")
    return add_named(session, card, names if by_class else (), () if by_class else names, region)


def export_prompts(session: Session) -> PromptSet:
    """The prompts of all segments that have any, as a prompts file holds them; names that come again are numbered.

    Masks go by file and segment: their voxels are no part of a prompts file.
    """
    segments: dict[str, SegmentPrompts] = {}
    for segment_id in session.segment_ids:
        prompts = session.written_state(segment_id).prompts
        if prompts:
            name = _free_name(session.segment_name(segment_id).strip() or "Segment", segments)
            segments[name] = SegmentPrompts(name, tuple(active.prompt for active in prompts))
    return PromptSet(tuple(segments.values()))


def _limit(before: Region | None, region: Region | None) -> tuple[session_steps.RegionStep, ...]:
    """The step that limits a segment to a region, if one is given and it does not keep to it already."""
    return (session_steps.RegionStep(region),) if region is not None and region != before else ()


def _free_name(name: str, taken: Collection[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _numbered(session: Session, kind: str, count: int) -> tuple[NewSegment, ...]:
    taken = {session.segment_name(segment_id) for segment_id in session.segment_ids}
    numbers = (number for number in itertools.count(1) if f"{kind} {number}" not in taken)
    return tuple(NewSegment(f"{kind} {number}", kind, number) for number in itertools.islice(numbers, count))


def clear_segments(session: Session, segment_ids: Sequence[str], removes: bool = False) -> None:
    """Take all voxels and prompts of segments away, and where it ``removes``, the segments themselves; as one edit.

    What waits for an answer there is taken back first; undo asks for it again.

    Raises:
        GoneError: a segment was deleted.
        InputError: one is locked. Nothing is changed then.
    """
    session.detect_external_changes()
    session.history.require_readable()
    session.history.require_unlocked(segment_ids)
    history = session.history
    for segment_id in segment_ids:
        history.segment(segment_id)
    history.keep_provisional(segment_ids)
    entry = UndoEntry(unanswered_before=session.set_aside(segment_ids))
    for segment_id in segment_ids:
        change = SegmentChange(lost=history.segment(segment_id).mask())
        history.follow(history.store.apply(Edit({segment_id: change})), entry)
        history.enter(segment_id, SegmentState(), entry)
        if removes:
            entry.removed[segment_id] = NewSegment(history.store.name(segment_id), segment_id=segment_id)
    edited = _finish(history, "deleted" if removes else "cleared", entry)
    history.remove(entry.removed)
    session.tell_edited(edited)


def take_withheld(session: Session, segment_id: str) -> None:
    """Give a segment the voxels that its last answer wanted and neighbours kept; those that are not locked lose them.

    Raises:
        GoneError: the segment was deleted.
        InputError: it is locked, or its neighbours kept nothing.
    """
    session.detect_external_changes()
    history, store = session.history, session.store
    history.require_readable()
    state = history.segment(segment_id).state
    denied = history.masks.get(state.denied)
    wanted = pack_mask(denied.unpack() & ~store.read(segment_id, denied.box), denied.box.start_kji)
    if wanted.box.is_empty:
        raise InputError("no neighbour kept voxels of this segment")
    for neighbour in store.segment_ids:
        history.segment(neighbour)  # what it loses, it gets back with undo
    entry = UndoEntry()
    change = SegmentChange(gained=wanted)
    edit = history.follow(store.write_change(segment_id, change, OverlapPolicy.PROTECT_LOCKED), entry)
    rest = without_mask(denied, edit.changes.get(segment_id, SegmentChange()).gained)
    history.enter(segment_id, state.after(WithheldStep(history.masks.put(rest), state.retained)), entry)
    for neighbour in edit.changes.keys() - {segment_id}:
        history.enter(neighbour, history.segments[neighbour].seeded(history.masks, "neighbour"), entry)
    session.tell_edited(_finish(history, "taken", entry))


def require_answered(session: Session, segment_id: str) -> None:
    """Raise an InputError where a segment waits for an answer."""
    if segment_id in session.queued_targets():
        name = session.segment_name(segment_id)
        raise InputError(f"'{name}' waits for an answer: wait until it is there, or cancel it, and lock it then")


def last_deleted(session: Session) -> str:
    """The id of a segment that the last edit of all deleted, for undo; empty where it deleted none."""
    done = session.history.undo_stack.done
    return next(iter(done[-1].removed), "") if done else ""


def _finish(history: SegmentHistory, kind: EditKind, entry: UndoEntry) -> SegmentEdited:
    changes = changes_of(entry.written)
    forgotten = history.undo_stack.push(entry)
    history.settle()
    return SegmentEdited(kind, entry.after, changes, removed=tuple(entry.removed), forgotten=forgotten)
