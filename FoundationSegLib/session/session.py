"""The interactive session: one per volume and segmentation. Prompts in, edits out; nothing is ever lost.

A session never waits and knows no client but by :class:`~.segment_store.Predictor`. Whoever polls the client hands its
answers over (:func:`FoundationSegLib.worker.client.deliver`); a script waits, a panel lets a timer tick.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import InitVar, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FoundationSegError, GeometryError, InputError, OutputError
from ..imaging.masks import EMPTY_MASK, PackedMask
from ..imaging.volume import Volume
from ..requests.segmentation import Prediction, SegmentPrediction
from .pending_edit import (
    Batch,
    Computed,
    PendingEdit,
    Prepared,
    ask,
    compute,
    prepare,
    request_names,
    signature,
    warning,
)
from .segment_history import SegmentHistory
from .segment_store import (
    Confirmation,
    ImageChanged,
    ImageSource,
    NewSegment,
    Options,
    Outcome,
    OverlapPolicy,
    Predictor,
    PromptStore,
    Refused,
    SegmentStore,
    read_segment,
)
from .steps import SegmentState, Steps, going_on, state_of

_NO_ANSWER = SegmentPrediction(EMPTY_MASK, None)


def _nothing(_: object) -> None:
    """For those who do not listen."""


@dataclass(slots=True)
class _Answered:
    """A batch whose answer is known and not written yet."""

    computed: list[tuple[PendingEdit, tuple[Computed, ...]]]
    prediction: Prediction | None
    pending: Confirmation | None = None


@dataclass(slots=True)
class Session:
    """What is done to the segments of one segmentation on one volume.

    While actions wait, a request is out, an answer is pending, or the session :attr:`is_refused`: whatever fails, be it
    a segment, the store, the client or a listener, is told and raised once the others have gone on.

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
    """

    volume: Volume
    store: SegmentStore
    client: Predictor
    options: Options = field(default_factory=Options)
    on_outcome: Callable[[Outcome], None] = _nothing
    on_request: Callable[["Session"], None] = _nothing
    on_queued: Callable[[str], None] = _nothing
    image_source: ImageSource | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    prompt_store: InitVar[PromptStore | None] = None
    version: InitVar[str] = ""
    history: SegmentHistory = field(init=False)
    _queue: list[PendingEdit] = field(default_factory=list)
    _batch: Batch | None = None
    _answered: _Answered | None = None
    _is_refused: bool = False
    _untold: list[PendingEdit] = field(default_factory=list)
    _image_stamp: Hashable = None

    def __post_init__(self, prompt_store: PromptStore | None, version: str) -> None:
        self.history = SegmentHistory(self.store, prompt_store, version)
        if self.store.geometry != self.volume.geometry:
            raise InputError("the segments are kept on another grid than the volume's")
        self.client.send_volume(self.volume)
        if self.image_source is not None:
            self._image_stamp = self.image_source.stamp()

    @property
    def request_id(self) -> int | None:
        """The number of the request that is out; None while there is none."""
        request = self._batch.request if self._batch is not None and self._answered is None else None
        return None if request is None else request.request_id

    @property
    def confirmation(self) -> Confirmation | None:
        """What waits to be confirmed or discarded."""
        return self._answered.pending if self._answered is not None else None

    @property
    def is_refused(self) -> bool:
        """True while what failed waits for :meth:`retry`, :meth:`discard`, or the next action."""
        return self._is_refused and bool(self._queue)

    @property
    def is_gone(self) -> bool:
        """True once the image or the segmentation was deleted: nothing can be read or written."""
        return self.store.is_gone

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments; none once they are gone."""
        return () if self.store.is_gone else self.store.segment_ids

    def segment_name(self, segment_id: str) -> str:
        """The name that the user calls a segment by."""
        return self.store.name(segment_id)

    def is_locked(self, segment_id: str) -> bool:
        """True for a segment that may not be written."""
        return self.store.is_locked(segment_id)

    def read(self, segment_id: str) -> NDArray[np.bool_]:
        """The voxels of a segment in the whole volume: a new (K, J, I) boolean array."""
        return self.store.read(segment_id, self.volume.geometry.box)

    def mask(self, segment_id: str) -> PackedMask:
        """The voxels of a segment, tightly boxed."""
        return read_segment(self.store, segment_id)

    def provenance(self, segment_id: str) -> Mapping[str, str]:
        """The origin of a segment, by the names of :data:`~.segment_store.PROVENANCE`; empty where it has none."""
        return self.store.provenance(segment_id)

    def voxels(self, segment_id: str) -> int:
        """The number of voxels of a segment. Raises as :meth:`.segment_history.SegmentHistory.record`."""
        return self.history.record(segment_id).known.voxels

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The segments that the session met, the only ones that it has steps of."""
        return tuple(self.history.records)

    def can_read(self, segment_id: str) -> bool:
        """True for a segment that is there and can be read now."""
        is_known = segment_id in self.history.records
        return segment_id in self.segment_ids and (is_known or self.store.is_readable)

    def can_undo(self, segment_id: str) -> bool:
        """True where something of a segment can be undone, be it that it still waits for an answer."""
        return not self.is_gone and (
            segment_id in self.queued_targets() or self.history.undo_stack.can_undo(segment_id)
        )

    def can_redo(self, segment_id: str) -> bool:
        """True where something of a segment can be done again."""
        is_queued = segment_id in self.queued_targets()
        return not self.is_gone and not is_queued and self.history.undo_stack.can_redo(segment_id)

    def can_reject(self, segment_id: str) -> bool:
        """True where a segment has a change that was neither accepted nor rejected."""
        if segment_id in self.queued_targets():
            return not self.is_gone
        return segment_id in self.segment_ids and self.history.last_change(segment_id) is not None

    def steps(self, segment_id: str) -> Steps:
        """The steps of a segment, written ones first, then those that wait for an answer.

        Raises:
            GoneError: the segment was deleted.
        """
        steps = self.history.record(segment_id).state.steps
        for action in self._queue:
            more = action.intents.get(segment_id, ())
            steps = more if action.is_replay and more else (*steps, *more)
        return steps

    def state(self, segment_id: str) -> SegmentState:
        """What :meth:`steps` come to."""
        now = self.history.records[segment_id].state.standing
        for action in self._queue:
            more = action.intents.get(segment_id, ())
            now = state_of(more) if action.is_replay and more else going_on(now, more)
        return now

    def queued_targets(self) -> frozenset[str]:
        """The segments with steps that are not written yet."""
        return frozenset(target for action in self._queue for target in action.intents)

    def add(self, action: PendingEdit) -> None:
        """Do something to segments: ask for what has to be predicted, and write what comes of it.

        Raises:
            GoneError: a segment of it was deleted.
            InputError, PromptError: it makes no sense; nothing has happened then.
            GeometryError: the image was put on another grid.
        """
        self.detect_external_changes()
        self._look_at_image()
        self._require_writable()
        for target in action.intents:
            self.history.record(target)
        self.history.require_unlocked(action.intents)
        queue, merged = self._with(action)
        signature(self._prepared(merged))  # a mistake is told now, and not when it is its turn
        self._queue = queue
        self._untold.append(merged)
        with ExitStack() as rest:
            rest.callback(self._tell_queued)
            self._go_on()

    def create(self, new: NewSegment) -> str:
        """Make an empty segment and return its id; whoever makes it knows. Raises as :meth:`.SegmentHistory.create`."""
        return self.history.create(new)

    def add_to_segments(self, intents: Sequence[tuple[NewSegment | str, Steps]]) -> tuple[str, ...]:
        """:meth:`add` on segments, of which those that are new are made at once and go again if it is discarded.

        Returns the ids, in order. Nothing is made where it makes no sense.
        """
        made: dict[str, Steps] = {}
        try:
            for target, steps in intents:
                made[target if isinstance(target, str) else self.history.announce(target)] = steps
            if made:
                self.add(PendingEdit(made, self.options.choice))
        except FoundationSegError:
            waiting = self.queued_targets()
            unborn = [key for key in made if key in self.history.unborn and key not in waiting]
            self.history.withdraw(unborn)
            for key in unborn:
                del self.history.unborn[key]
            raise
        return tuple(made)

    def retry(self) -> None:
        """Ask again what failed. Raises as :meth:`.segment_store.SegmentStore.require_writable`."""
        self._require_writable()
        self.detect_external_changes()
        self._batch = self._answered = None
        self._go_on()

    def discard(self, target: str | None = None) -> bool:
        """Take back what is not written: what was asked, waits, failed or is pending. True if there was anything.

        With a target, only actions on that segment; the others are asked again.
        """
        return self._drop(lambda action: target is None or target in action.intents)

    def confirm(self) -> None:
        """Write what is pending. If somebody changed its segments meanwhile, it is asked again first.

        Raises:
            InputError: one of its segments is locked; it is pending as before.
        """
        answered = self._answered
        if self.confirmation is None or answered is None:
            return
        changed = self.detect_external_changes()
        if self._answered is not answered or self._batch is None:
            return  # what it was for is gone
        self._require_writable()
        self.history.require_unlocked(self._batch.targets)
        if changed & set(self._batch.targets):
            self.retry()
        else:
            self._write(answered)

    def answer(self, prediction: Prediction) -> None:
        """Take an answer in; one to anything but the newest request is dropped.

        Raises:
            InputError: a segment was locked meanwhile: nothing is written of the action that it belongs to.
            Exception: whatever the store or a listener raised; what was written was told then.
        """
        batch = self._batch
        if prediction.request_id != self.request_id or batch is None:
            return
        try:
            self._take_in(batch, prediction)
        except Exception as error:
            if self._batch is batch and self._answered is None:
                self._batch = None
            self._refuse_stuck(error)
            raise

    def _take_in(self, batch: Batch, prediction: Prediction) -> None:
        changed = self.detect_external_changes()
        if self._batch is not batch:
            return  # what it was for is gone
        try:
            is_other_image = self._look_at_image()
            self._require_writable()
        except FoundationSegError as error:
            self.fail(prediction.request_id, error)
            return
        if is_other_image:
            self.retry()
            return
        if changed & set(batch.targets):
            fresh = self._batch_of(batch.actions, prediction.request_id)
            if fresh.request != batch.request:
                self.retry()
                return
            batch = fresh
        self._conclude(batch, prediction)

    def fail(self, request_id: int, error: FoundationSegError) -> None:
        """Take a failure in. What was asked waits for :meth:`retry`, :meth:`discard`, or the next action."""
        if request_id != self.request_id:
            return
        with ExitStack() as rest:
            rest.callback(self._refuse_request, request_id, error)
            self.detect_external_changes()

    def undo(self, segment_id: str) -> bool:
        """Take back the last action of a segment, without asking a model; False if there is none (any more).

        What is not written yet is taken back first. Raises as :meth:`.segment_history.SegmentHistory.undo`.
        """
        self.detect_external_changes()
        return self.discard(segment_id) or self._tell(self.history.undo(segment_id))

    def redo(self, segment_id: str) -> bool:
        """Do again what was undone last; False if there is nothing. Raises as :meth:`.SegmentHistory.redo`."""
        self.detect_external_changes()
        return segment_id not in self.queued_targets() and self._tell(self.history.redo(segment_id))

    def accept(self, segment_id: str) -> None:
        """The last change of a segment is right; it cannot be rejected any more, but undone."""
        self._tell(self.history.accept(segment_id))

    def reject(self, segment_id: str) -> None:
        """The last change of a segment is wrong. Raises as :meth:`.segment_history.SegmentHistory.reject`."""
        self.detect_external_changes()
        if not self.discard(segment_id):
            self._tell(self.history.reject(segment_id))

    def detect_external_changes(self) -> frozenset[str]:
        """Find out what others did and take back what was to be done to segments that are gone.

        What waits beside it goes on. Where image and segments were moved together, their prompts are taken along.
        """
        self._move_with_image()
        changed = self.history.detect_external_changes()
        there = () if self.store.is_gone else self.store.segment_ids
        is_gone = self.store.is_gone
        self._drop(lambda action: is_gone or any(key not in there for key in action.intents))
        return changed

    def _require_writable(self) -> None:
        if not self.store.is_gone:
            self.store.require_writable()

    def _look_at_image(self) -> bool:
        """Find out whether others changed the image; the client gets the new one then. True if so.

        Raises:
            InputError, GeometryError: it cannot be used any more, or was put on another grid.
        """
        source = self.image_source
        if source is None or self.store.is_gone or source.stamp() == self._image_stamp:
            return False
        stamp, volume = source.stamp(), source.read()
        if volume.geometry != self.volume.geometry:
            raise GeometryError("the image was moved, turned or resized: its segments lie elsewhere; begin anew on it")
        self._image_stamp = stamp
        if volume.key == self.volume.key:
            return False
        self.client.send_volume(volume)
        before, self.volume = self.volume, volume
        self.client.remove_volume(before.key)
        self._tell(ImageChanged())
        return True

    def _move_with_image(self) -> None:
        """Take the prompts along where image and segments have other coordinates, as after "Harden transform".

        What was asked is asked again.
        """
        store, before = self.store, self.volume
        if store.is_gone or not store.is_readable or store.geometry == before.geometry:
            return
        source = self.image_source
        stamp, volume = (source.stamp(), source.read()) if source is not None else (None, None)
        if volume is None or volume.geometry != store.geometry:
            volume = replace(before, geometry=store.geometry)
        matrix = store.geometry.ijk_to_ras @ before.geometry.ras_to_ijk
        self.client.send_volume(volume)
        self.volume, self._image_stamp = volume, stamp
        moved = {id(action): action.transformed(matrix) for action in self._queue}
        self._queue = [moved[id(action)] for action in self._queue]
        self._untold = [moved.get(id(action), action) for action in self._untold]
        self._batch = self._answered = None
        self.history.move_prompts(matrix)
        self.client.remove_volume(before.key)
        self._tell(ImageChanged())
        if self._queue and not self._is_refused:
            self._go_on()

    def _tell(self, outcome: Outcome | None) -> bool:
        if outcome is not None:
            with ExitStack() as rest:
                rest.callback(self.on_outcome, outcome)
                self._tell_queued()
        return outcome is not None

    def _tell_queued(self) -> None:
        """Tell of the segments that more or fewer steps wait for than was told.

        That comes after the request is out: what is done then is done while the model is at work.
        """
        untold, self._untold = self._untold, []
        targets = dict.fromkeys(target for action in untold for target in action.intents)
        with ExitStack() as rest:
            for target in reversed(targets):
                if target in self.history.records:
                    rest.callback(self.on_queued, target)

    def _with(self, action: PendingEdit) -> tuple[list[PendingEdit], PendingEdit]:
        """The queue with one action more, and the action as it stands there: merged with what it goes on from."""
        queue = list(self._queue)
        for n in reversed(range(len(queue))):
            if queue[n].intents.keys() & action.intents.keys():
                merged = queue[n].merged(action)
                if merged is not None:
                    queue[n] = merged
                    return queue, merged
                break
        return [*queue, action], action

    def _drop(self, is_meant: Callable[[PendingEdit], bool]) -> bool:
        """Take actions out of the queue, and go on with the others; True if there were any."""
        left = [action for action in self._queue if not is_meant(action)]
        dropped = [action for action in self._queue if is_meant(action)]
        if not dropped:
            return False
        self._queue = left
        with ExitStack() as rest:
            rest.callback(self._go_on)
            rest.callback(self._give_up, dropped)
            if self._batch is not None and any(action not in left for action in self._batch.actions):
                request_id, self._batch, self._answered = self.request_id, None, None
                if request_id is not None:
                    self.client.cancel(request_id)
        return True

    def _give_up(self, actions: Sequence[PendingEdit]) -> None:
        """Tell that steps wait no more, and take away what was made for them alone."""
        self._untold += actions
        with ExitStack() as rest:
            rest.callback(self._withdraw, {key for action in actions for key in action.intents})
            self._tell_queued()

    def _withdraw(self, targets: set[str]) -> None:
        """Take away those segments that were made for what is given up."""
        given_up = targets - self.queued_targets()
        unborn = [key for key in self.history.unborn if key in given_up]
        self.history.withdraw(unborn)
        for segment_id in unborn:  # whoever locked or changed one has made it his
            self.history.unborn.pop(segment_id, None)

    def _prepared(self, action: PendingEdit) -> tuple[Prepared, ...]:
        names = request_names(action.intents, self.store)
        return prepare(action, self.history.records, self.history.masks, self.volume.geometry, names)

    def _go_on(self) -> None:
        """Ask for the first of the queue, and what can be asked with it, unless just that is out already."""
        try:
            while self._queue and self._ask_next():
                pass
        except Exception as error:
            self._refuse_stuck(error)
            raise

    def _ask_next(self) -> bool:
        """Ask for the first of the queue, or do what needs no model; False while something has to be waited for."""
        try:
            actions = self._first_together()
            if self._batch is not None and self._batch.actions == actions:
                return False
            batch = self._batch_of(actions, next(self.numbers))
        except FoundationSegError as error:  # it makes no sense any more after what became of those before it
            first = self._queue[0]
            with ExitStack() as rest:
                rest.callback(self._tell, Refused(error, is_waiting=False))
                self._drop(lambda action: action is first)
            return False
        self._batch, self._answered, self._is_refused = None, None, False
        if batch.request is not None:
            self.client.submit(batch.request)
            self._batch = batch
            self.on_request(self)
            return False
        self._batch = batch
        self._conclude(batch, None)
        return self._answered is None

    def _refuse_request(self, request_id: int, error: FoundationSegError) -> None:
        if request_id == self.request_id:  # otherwise what it was for is gone
            self._refuse(error)

    def _refuse(self, error: FoundationSegError) -> None:
        """What is asked or answered came to nothing, and waits."""
        self._batch, self._answered, self._is_refused = None, None, True
        if self._queue:
            self._tell(Refused(error))

    def _refuse_stuck(self, error: Exception) -> None:
        """After an exception: say so, unless the queue has gone on, waits to be confirmed, or was refused already."""
        if self._queue and self.request_id is None and self._answered is None and not self._is_refused:
            self._refuse(_as_ours(error))

    def _first_together(self) -> tuple[PendingEdit, ...]:
        first, *rest = self._queue
        if not rest:
            return (first,)
        wanted, taken, others = signature(self._prepared(first)), [first], set(first.intents)
        for action in rest:  # one that goes on from another has to wait for it
            is_free = wanted is not None and others.isdisjoint(action.intents)
            with suppress(FoundationSegError):  # told when it is its turn
                if is_free and signature(self._prepared(action)) == wanted:
                    taken.append(action)
            others |= action.intents.keys()
        return tuple(taken)

    def _batch_of(self, actions: tuple[PendingEdit, ...], request_id: int) -> Batch:
        batch = Batch(actions, tuple(self._prepared(action) for action in actions))
        return ask(batch, request_id, self.volume.key, request_names(batch.targets, self.store))

    def _conclude(self, batch: Batch, prediction: Prediction | None) -> None:
        """Put the answer together with what is there; write it, or ask first."""
        answers = dict(zip(batch.asked, prediction.segments, strict=True)) if prediction is not None else {}
        history, above = self.history, self.options.ask_above
        answered = _Answered([], prediction)
        for action, prepared in zip(batch.actions, batch.prepared, strict=True):
            parts = tuple(
                compute(one, answers.get(one.target, _NO_ANSWER), history.store, history.records) for one in prepared
            )
            answered.computed.append((action, parts))
            if above is not None and answered.pending is None:
                answered.pending = warning(action, parts, history.records, history.masks, above)
        self._answered = answered
        if answered.pending is not None:
            self._tell(answered.pending)
        else:
            self._write(answered)

    def _write(self, answered: _Answered) -> None:
        """Write all actions, tell what became of each, and go on with the queue, whatever fails in between."""
        self._batch = self._answered = None
        outcomes: list[Outcome] = []
        with ExitStack() as rest:
            rest.callback(self._go_on)
            rest.callback(self._tell_all, outcomes)
            for action, computed in reversed(answered.computed):
                rest.callback(self._write_action, action, computed, answered.prediction, outcomes)

    def _write_action(
        self,
        action: PendingEdit,
        computed: tuple[Computed, ...],
        prediction: Prediction | None,
        outcomes: list[Outcome],
    ) -> None:
        if action not in self._queue:
            return  # a listener took it back meanwhile
        self._queue.remove(action)
        self._untold = [one for one in self._untold if one is not action]  # what is written is shown
        policy = OverlapPolicy.ALLOW if action.is_replay and not action.is_asked_again else self.options.policy
        try:
            self.history.write(computed, policy, prediction, outcomes.append)
        except Exception as error:  # it was locked or deleted meanwhile, or cannot be masked
            outcomes.append(Refused(_as_ours(error), is_waiting=False))
            self._give_up([action])
            raise

    def _tell_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell of what was written first, so that what was refused is read last."""
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        written = [outcome for outcome in outcomes if not isinstance(outcome, Refused)]
        with ExitStack() as rest:
            for outcome in reversed((*written, *refused)):
                rest.callback(self._tell, outcome)


def _as_ours(error: Exception) -> FoundationSegError:
    """An error that users can be told of."""
    if isinstance(error, FoundationSegError):
        return error
    return OutputError(f"the segments could not be read or written: {type(error).__name__}: {error}")
