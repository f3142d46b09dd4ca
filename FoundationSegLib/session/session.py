"""The interactive session: one per volume and segmentation. Prompts in, edits out; nothing is ever lost.

A session never waits and knows no client but by :class:`~.segment_store.Predictor`. Whoever polls the client hands its
answers over (:func:`FoundationSegLib.worker.client.deliver`); a script waits, a panel lets a timer tick.
"""

import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import InitVar, dataclass, field, replace
from operator import attrgetter

from ..errors import FoundationSegError, GeometryError, InputError
from ..imaging.masks import EMPTY_MASK
from ..imaging.volume import Volume
from ..requests.segmentation import Prediction, SegmentPrediction
from . import pending_edit, segment_store
from .plan import AnsweredPlan, SegmentPlan, SliceParts
from .queries import SessionQueries
from .segment_history import SegmentHistory
from .segment_store import Options, SegmentEdited
from .steps import PROMPT_STEPS, SegmentState

_NO_ANSWER = SegmentPrediction(EMPTY_MASK, None)


def _ignore(_: object) -> None:
    """Listen to nothing."""


@dataclass(slots=True)
class Session(SessionQueries):
    """The work on the segments of one segmentation of one volume.

    While edits wait, a request is out, an answer waits to be confirmed, or the session :attr:`is_refused`: whatever
    fails, be it a segment, the store, the client or a listener, is told and raised once the others have gone on.

    Attributes:
        volume: the image.
        store: where the segments are.
        client: who predicts; the session hands the image over.
        options: model, overlap policy, when to ask.
        on_outcome: told of everything that happens.
        on_request: told after each request; a panel starts its timer there, a script waits there.
        on_queued: told of a segment whose steps that wait for an answer became more or fewer; what is shown of prompts
            follows there, because a change that is discarded leaves no outcome.
        image_source: where the image comes from, if others may change it meanwhile; its new voxels are sent then.
        numbers: of requests; others that use the same client take theirs from here, too.
        prompt_store: where the steps of segments are kept with them, if anywhere.
        version: of the software, for the provenance.
        listeners: told of each edit one after the other, before :attr:`on_outcome`: tags, markups, then recovery.
        history: what was written.
    """

    volume: Volume
    store: segment_store.SegmentStore
    client: segment_store.Predictor
    options: Options = field(default_factory=Options)
    on_outcome: Callable[[segment_store.Outcome], None] = _ignore
    on_request: Callable[["Session"], None] = _ignore
    on_queued: Callable[[str], None] = _ignore
    image_source: segment_store.ImageSource | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    prompt_store: InitVar[segment_store.PromptStore | None] = None
    version: InitVar[str] = ""
    listeners: list[Callable[[SegmentEdited], None]] = field(default_factory=list)
    history: SegmentHistory = field(init=False)
    _queue: list[pending_edit.PendingEdit] = field(default_factory=list)
    _asked: pending_edit.AskedEdits | None = None
    _is_refused: bool = False
    _untold: list[pending_edit.PendingEdit] = field(default_factory=list)
    _image_stamp: Hashable = None
    _placed: SliceParts = field(init=False)

    def __post_init__(self, prompt_store: segment_store.PromptStore | None, version: str) -> None:
        self.history = SegmentHistory(self.store, prompt_store, version)
        if self.store.geometry != self.volume.geometry:
            raise InputError("the segments are kept on another grid than the volume's")
        self._placed = SliceParts(self.volume.geometry)
        self.client.send_volume(self.volume)
        if self.image_source is not None:
            self._image_stamp = self.image_source.stamp()

    @property
    def request_id(self) -> int | None:
        """The number of the request that is out; None while there is none."""
        asked = self._asked
        return asked.request.request_id if asked is not None and asked.answers is None and asked.request else None

    def add(self, edit: pending_edit.PendingEdit) -> None:
        """Do something to segments: ask for what has to be predicted, and write what comes of it.

        Raises:
            GoneError: a segment of it was deleted.
            InputError, PromptError: it makes no sense; nothing has happened then.
            GeometryError: the image was put on another grid.
        """
        self.detect_external_changes()
        if self.image_source is not None:
            self._read_changed_image(self.image_source)
        if not self.store.is_gone:
            self.store.require_writable()
        for segment_id in edit.steps:
            self.history.segment(segment_id)
        self.history.require_unlocked(edit.steps)
        queue, merged = pending_edit.merged_queue(self._queue, edit) if self._queue else ([edit], edit)
        plans = self._plans(merged)  # a mistake is told now, and not when it is its turn
        if len(plans) > 1:
            pending_edit.signature(plans)
        self._queue = queue
        self._untold.append(merged)
        try:
            self._go_on()
        finally:
            if self._untold:
                self._tell_queued()

    def state(self, segment_id: str) -> SegmentState:
        """The state that :meth:`steps` come to, as it was known last."""
        state = self.history.segment(segment_id).state
        for edit in self._queue:
            state = edit.after(state, segment_id)
        return state

    def next_key(self, segment_id: str) -> int:
        """The number of the key that the next prompt of a segment gets; none that it had comes again."""
        number, steps = 0, list(self.history.segment(segment_id).state.steps)
        for edit in self._queue:
            steps += edit.steps.get(segment_id, ())
        for step in steps:
            if isinstance(step, PROMPT_STEPS) and step.key.isdecimal():
                number = max(number, int(step.key))
        return number + 1

    def queued_targets(self) -> frozenset[str]:
        """The segments with steps that are not written yet."""
        return frozenset().union(*map(attrgetter("steps"), self._queue))

    def create(self, new: segment_store.NewSegment) -> str:
        """Make an empty segment and return its id; whoever makes it knows. Raises as :meth:`.SegmentHistory.create`."""
        return self.history.create(new)

    def retry(self) -> None:
        """Ask again what failed. Raises as :meth:`.segment_store.SegmentStore.require_writable`."""
        if not self.store.is_gone:
            self.store.require_writable()
        self.detect_external_changes()
        self._asked = None
        self._go_on()

    def discard(self, segment_id: str | None = None) -> bool:
        """Take back what is not written: what was asked, waits, failed or is pending. True if there was anything.

        With a segment, only edits of that one; the others are asked again.
        """
        return self._drop([edit for edit in self._queue if segment_id is None or segment_id in edit.steps])

    def set_aside(self, segment_ids: Collection[str]) -> segment_store.Unanswered:
        """Take what is not written out of the queue, of these segments alone, and return it; replays are not."""
        edits = [edit for edit in self._queue if not edit.steps.keys().isdisjoint(segment_ids)]
        parts = [edit.part(edit.steps.keys() - set(segment_ids)) for edit in edits]
        self._queue += [part for part in parts if part.steps]
        self._drop(edits)
        return tuple(edit.part(segment_ids).steps for edit in edits if not edit.is_replay)

    def _shelve(self, segment_id: str) -> bool:
        waiting = tuple(edit.steps for edit in self._queue if segment_id in edit.steps and not edit.is_replay)
        self.history.undo_stack.shelve(waiting, self.history.provisional)
        return self.discard(segment_id)

    def confirm(self) -> None:
        """Write what waits to be confirmed. If its segments have changed meanwhile, it is asked again first.

        Raises:
            InputError: one of its segments is locked; it waits as before.
        """
        asked = self._asked
        if asked is None or asked.confirmation is None:
            return
        self.detect_external_changes()
        if self._asked is not asked:
            return  # what it was for is gone
        self.store.require_writable()
        self.history.require_unlocked([segment_id for edit in asked.edits for segment_id in edit.steps])
        segments, plans = self.history.segments, itertools.chain.from_iterable(asked.plans)
        if all(segments[plan.segment_id].state is plan.before for plan in plans):
            self._write(asked)
        else:
            self.retry()

    def answer(self, prediction: Prediction) -> None:
        """Take an answer in; one to anything but the newest request is dropped.

        Raises:
            InputError: a segment was locked meanwhile: nothing is written of the edit that it belongs to.
            Exception: whatever the store or a listener raised; what was written was told then.
        """
        asked = self._asked
        if asked is None or prediction.request_id != self.request_id:
            return
        try:
            self.detect_external_changes()
            if self._asked is not asked:
                return  # what it was for is gone
            try:
                has_changed = self.image_source is not None and self._read_changed_image(self.image_source)
                self.store.require_writable()
            except FoundationSegError as error:
                self.fail(prediction.request_id, error)
                return
            if not has_changed:
                asked.plans = list(map(self._plans, asked.edits))
                request = pending_edit.make_request(asked.plans, prediction.request_id, self.volume.key, self.store)
                nameless, old = pending_edit.nameless, asked.request
                has_changed = request != old and nameless(request) != nameless(old)
            if has_changed:
                self.retry()
            else:
                self._conclude(asked, prediction)
        except Exception as error:
            if self._asked is asked and asked.answers is None:
                self._asked = None
            self._refuse_stuck(error)
            raise

    def fail(self, request_id: int, error: FoundationSegError) -> None:
        """Take a failure in. What was asked waits for :meth:`retry`, :meth:`discard`, or the next edit."""
        if request_id != self.request_id:
            return
        try:
            self.detect_external_changes()
        finally:
            if request_id == self.request_id:  # otherwise what it was for is gone
                self._refuse(error)

    def undo(self, segment_id: str) -> bool:
        """Take back the last edit of a segment, without asking a model; False if there is none (any more).

        What is not written yet is taken back first. Raises as :meth:`.segment_history.SegmentHistory.undo`.
        """
        self.detect_external_changes()
        return self._shelve(segment_id) or self.tell_edited(self.history.undo(segment_id))

    def redo(self, segment_id: str) -> bool:
        """Do again what was undone last; False if there is nothing. Raises as :meth:`.SegmentHistory.redo`."""
        self.detect_external_changes()
        return segment_id not in self.queued_targets() and self.tell_edited(self.history.redo(segment_id))

    def accept(self, segment_id: str) -> None:
        """Note that the last change of a segment is right; it cannot be rejected any more, but undone."""
        self.detect_external_changes()
        self.tell_edited(self.history.accept(segment_id))

    def reject(self, segment_id: str) -> None:
        """Take back the last change of a segment as wrong. Raises as :meth:`.segment_history.SegmentHistory.reject`."""
        self.detect_external_changes()
        if not self._shelve(segment_id):
            self.tell_edited(self.history.reject(segment_id))

    def tell_edited(self, edited: SegmentEdited | None) -> bool:
        """Tell of an edit, and ask again what waited for an answer then; False where there was none."""
        if edited is not None:
            self._tell([edited])
            for steps in edited.unanswered:
                self.add(pending_edit.PendingEdit(steps, self.options.choice))
        return edited is not None

    def detect_external_changes(self) -> frozenset[str]:
        """Find out what others did, and take back what was to be done to segments that are gone.

        What waits beside it goes on. Where image and segments were moved together, their prompts are taken along.
        Returns the ids of segments that others changed or deleted.
        """
        changed = self.history.detect_external_changes()
        geometry = self.store.geometry
        if geometry is not self.volume.geometry and geometry != self.volume.geometry:
            self._move_with_image()
        gone = []
        for edit in self._queue:
            if not edit.steps.keys() <= self.history.stamps.keys():
                gone.append(edit)
        if gone:
            self._drop(gone)
        if self.history.untold:
            with self.store.unnoticed():
                self._tell([self.history.take_untold()])
        return changed

    def _read_changed_image(self, source: segment_store.ImageSource) -> bool:
        """Find out whether others changed the image; the client gets the new one then. True if so.

        Raises:
            InputError, GeometryError: it cannot be used any more, or was put on another grid.
        """
        stamp = source.stamp()
        if self.store.is_gone or stamp == self._image_stamp:
            return False
        volume = source.read()
        if volume.geometry != self.volume.geometry:
            raise GeometryError("the image was moved, turned or resized: its segments lie elsewhere; begin anew on it")
        if volume.key == self.volume.key:
            self._image_stamp = stamp
            return False
        self._use_image(volume, stamp)
        self._tell([segment_store.ImageChanged()])
        return True

    def _use_image(self, volume: Volume, stamp: Hashable) -> None:
        self.client.send_volume(volume)
        before, self.volume, self._image_stamp = self.volume, volume, stamp
        self._placed = SliceParts(volume.geometry)
        self.client.remove_volume(before.key)

    def _move_with_image(self) -> None:
        """Take the prompts along where image and segments have other coordinates, as after "Harden transform".

        What was asked is asked again.
        """
        store, before, source = self.store, self.volume, self.image_source
        if store.is_gone or not store.is_readable:
            return
        stamp, volume = (source.stamp(), source.read()) if source is not None else (None, None)
        if volume is None or volume.geometry != store.geometry:
            volume = replace(before, geometry=store.geometry)
        matrix = store.geometry.ijk_to_ras @ before.geometry.ras_to_ijk
        self._use_image(volume, stamp)
        moved = {id(edit): edit.transformed(matrix) for edit in self._queue}
        self._queue = list(moved.values())
        self._untold = [moved.get(id(edit), edit) for edit in self._untold]
        self._asked = None
        self.history.move_prompts(matrix)
        self._tell([self.history.take_untold(), segment_store.ImageChanged()])
        if self._queue and not self._is_refused:
            self._go_on()

    def _tell(self, outcomes: Sequence[segment_store.Outcome]) -> None:
        """Tell of what was written first, so that what was refused is read last."""
        written, refused = [], []
        for outcome in outcomes:
            (refused if isinstance(outcome, segment_store.Refused) else written).append(outcome)
        with ExitStack() as rest:
            for outcome in reversed(written + refused):
                if not isinstance(outcome, SegmentEdited) or outcome.kind != "others":
                    rest.callback(self.on_outcome, outcome)
                for listener in reversed(self.listeners if isinstance(outcome, SegmentEdited) else ()):
                    rest.callback(listener, outcome)
            if self._untold:
                self._tell_queued()

    def _tell_queued(self) -> None:
        """Tell of the segments that more or fewer steps wait for than was told.

        That comes after the request is out: what is done then is done while the model is at work.
        """
        untold, self._untold = self._untold, []
        segment_ids = dict.fromkeys(segment_id for edit in untold for segment_id in edit.steps)
        with ExitStack() as rest:
            for segment_id in reversed([key for key in segment_ids if key in self.history.segments]):
                rest.callback(self.on_queued, segment_id)

    def _drop(self, edits: Sequence[pending_edit.PendingEdit]) -> bool:
        """Take edits out of the queue, and go on with the others; True if there were any."""
        if not edits:
            return False
        self._queue = [edit for edit in self._queue if edit not in edits]
        with ExitStack() as rest:
            rest.callback(self._go_on)
            rest.callback(self._give_up, edits)
            if self._asked is not None and any(edit in edits for edit in self._asked.edits):
                request_id, self._asked = self.request_id, None
                if request_id is not None:
                    self.client.cancel(request_id)
        return True

    def _give_up(self, edits: Sequence[pending_edit.PendingEdit]) -> None:
        """Tell that steps wait no more, and take away what was made for them alone."""
        self._untold += edits
        given_up = {segment_id for edit in edits for segment_id in edit.steps}
        with ExitStack() as rest:
            rest.callback(lambda: self.history.withdraw_provisional(given_up - self.queued_targets()))
            self._tell_queued()

    def _plans(self, edit: pending_edit.PendingEdit) -> tuple[SegmentPlan, ...]:
        """The plans of an edit, made once for the states that its segments are in."""
        segments = self.history.segments
        for plan in edit.plans:
            if segments[plan.segment_id].state is not plan.before:
                edit.plans = ()
        if not edit.plans:
            edit.plans = pending_edit.make_plans(edit, segments, self.history.masks, self._placed)
        return edit.plans

    def _go_on(self) -> None:
        """Ask for the first of the queue, and what can be asked with it, unless just that is out already.

        What needs no model is done at once, until something has to be waited for.
        """
        try:
            while self._queue:
                try:
                    edits = self._first_together() if len(self._queue) > 1 else (self._queue[0],)
                    if self._asked is not None and self._asked.edits == edits:
                        return
                    plans = list(map(self._plans, edits))
                    request = pending_edit.make_request(plans, next(self.numbers), self.volume.key, self.store)
                except FoundationSegError as error:  # it makes no sense any more after what became of those before it
                    first = self._queue[0]
                    with ExitStack() as rest:
                        rest.callback(self._tell, [segment_store.Refused(error, is_waiting=False)])
                        self._drop([first])
                    return
                asked = pending_edit.AskedEdits(edits, plans, request)
                self._asked, self._is_refused = None, False
                if request is not None:
                    self.client.submit(request)
                    self._asked = asked
                    self.on_request(self)
                    return
                self._asked = asked
                self._conclude(asked, None)
                if self._asked is not None:
                    return
        except Exception as error:
            self._refuse_stuck(error)
            raise

    def _refuse(self, error: FoundationSegError) -> None:
        """Note that what was asked or answered came to nothing, and waits."""
        self._asked, self._is_refused = None, True
        if self._queue:
            self._tell([segment_store.Refused(error)])

    def _refuse_stuck(self, error: Exception) -> None:
        """After an exception: say so, unless the queue has gone on, waits to be confirmed, or was refused already."""
        is_answered = self._asked is not None and self._asked.answers is not None
        if self._queue and self.request_id is None and not is_answered and not self._is_refused:
            self._refuse(pending_edit.as_our_error(error))

    def _first_together(self) -> tuple[pending_edit.PendingEdit, ...]:
        first, *rest = self._queue
        first_signature, together, others = pending_edit.signature(self._plans(first)), [first], set(first.steps)
        for edit in rest:  # one that goes on from another has to wait for it
            is_free = first_signature is not None and others.isdisjoint(edit.steps)
            with suppress(FoundationSegError):  # told when it is its turn
                if is_free and pending_edit.signature(self._plans(edit)) == first_signature:
                    together.append(edit)
            others |= edit.steps.keys()
        return tuple(together)

    def _conclude(self, asked: pending_edit.AskedEdits, prediction: Prediction | None) -> None:
        """Put the answer together with what is there; write it, or ask first."""
        segments = iter(prediction.segments if prediction is not None else ())
        answered: list[list[AnsweredPlan]] = []
        confirmation, above = None, self.options.ask_above
        for edit, plans in zip(asked.edits, asked.plans, strict=True):
            answers = []
            for plan in plans:
                answers.append(self.history.answered(plan, next(segments) if plan.prompts else _NO_ANSWER))
            answered.append(answers)
            if above is not None and confirmation is None:
                confirmation = pending_edit.confirmation_of(
                    edit, answers, self.history.segments, self.history.masks, above
                )
        asked.prediction, asked.answers, asked.confirmation = prediction, answered, confirmation
        if confirmation is not None:
            self._tell([confirmation])
        else:
            self._write(asked)

    def _write(self, asked: pending_edit.AskedEdits) -> None:
        """Write all edits, tell what became of each, and go on with the queue, whatever fails in between."""
        self._asked = None
        outcomes: list[segment_store.Outcome] = []
        with ExitStack() as rest:
            rest.callback(self._go_on)
            rest.callback(self._tell, outcomes)
            for edit, answers in reversed(list(zip(asked.edits, asked.answers or (), strict=True))):
                rest.callback(self._write_edit, edit, answers, asked.prediction, outcomes)

    def _write_edit(
        self,
        edit: pending_edit.PendingEdit,
        answers: Sequence[AnsweredPlan],
        prediction: Prediction | None,
        outcomes: list[segment_store.Outcome],
    ) -> None:
        if edit not in self._queue:
            return  # a listener took it back meanwhile
        self._queue.remove(edit)
        if edit in self._untold:
            self._untold.remove(edit)  # what is written is shown
        policy = (
            segment_store.OverlapPolicy.ALLOW if edit.is_replay and not edit.is_asked_again else self.options.policy
        )
        try:
            self.history.write(answers, policy, prediction, outcomes.append)
        except Exception as error:  # it was locked or deleted meanwhile, or cannot be masked
            outcomes.append(segment_store.Refused(pending_edit.as_our_error(error), is_waiting=False))
            self._give_up([edit])
            raise
