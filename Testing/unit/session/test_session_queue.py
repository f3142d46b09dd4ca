"""What goes wrong in the middle of an answer: what was written is told, what was not is told, and the others go on."""

import pytest

from FoundationSegLib.errors import InferenceError, InputError
from FoundationSegLib.prompts.kinds import BoxPrompt, Polarity
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import ArrayStore, OverlapPolicy, Refused, SegmentEdited
from FoundationSegLib.session.segments import SegmentSession, add_objects, add_to_segments
from FoundationSegLib.session.steps import PromptAdded
from Testing.unit.session.session_cases import make_session, mask_of, point, ras, segment_of, small_volume


class BreakingStore(ArrayStore):
    """Segments on a disk that fails: ``broken`` are the ids that cannot be written, or not read."""

    __slots__ = ("broken", "writes_half")

    def write_change(self, segment_id, change, policy):
        if segment_id in getattr(self, "broken", ()):
            if getattr(self, "writes_half", False):
                mask = self.read(segment_id)
                mask[0, 0, 0] = True
                self.put(segment_id, mask)
            raise OSError("the disk is full")
        return super().write_change(segment_id, change, policy)

    def read(self, segment_id, box=None):
        if ("read", segment_id) in getattr(self, "broken", ()):
            raise MemoryError
        return super().read(segment_id, box)


@pytest.fixture
def session():
    return make_session(BreakingStore(small_volume().geometry))[0]


@pytest.fixture
def three(session):
    return [segment_of(session, name) for name in "ABC"]


def sizes(segments):
    return [int(mask_of(segment).sum()) for segment in segments]


def ask(session, segments):
    """A request for two segments is out, and a third one waits for something that cannot be asked with it."""
    session.client.is_slow = True
    for segment in segments[:2]:
        segment.add(point(3, 2 + 5 * segments.index(segment)))
    segments[2].add(point(5))
    segments[2].propagate(Propagation(4, 7))
    assert session.queued_targets() == {segment.segment_id for segment in segments}


def add_to_both(session):
    """One action on two segments."""
    segments = [segment_of(session, name) for name in "AB"]
    steps = [(PromptAdded("1", point(k)),) for k in (3, 5)]
    add_to_segments(session, list(zip([one.segment_id for one in segments], steps, strict=True)))
    return segments


def finish(session):
    session.client.is_slow = False
    while session.request_id is not None:
        session.client.reply()


def has_gone_on(session):
    waits = session.request_id is not None or session.confirmation is not None or session.is_refused
    return waits or not session.queued_targets()


@pytest.mark.parametrize("at", [0, 1])
def test_a_segment_that_is_locked_before_the_answer(session, three, told, at):
    ask(session, three)
    store, key = session.store, three[at].segment_id
    store.lock(key, True)
    with pytest.raises(InputError, match="locked meanwhile"):
        finish(session)
    finish(session)
    assert [type(one) for one in told] == [SegmentEdited, Refused, SegmentEdited]
    assert not told[1].is_waiting and not session.queued_targets() and not three[at].prompts
    assert [size > 0 for size in sizes(three)] == [n != at for n in range(3)]
    assert three[1 - at].segment_id in told[0].changes


def test_one_action_on_several_segments_is_written_whole_or_not(session, told):
    session.client.is_slow = True
    both = add_to_both(session)
    session.store.lock(both[1].segment_id, True)
    with pytest.raises(InputError, match="nothing was written"):
        finish(session)
    assert sizes(both) == [0, 0] and isinstance(told[-1], Refused) and has_gone_on(session)


@pytest.mark.parametrize("at", [0, 1])
def test_a_segment_that_is_deleted_before_the_answer(session, three, told, at):
    ask(session, three)
    session.store.remove(three[at].segment_id)
    finish(session)
    left = [segment for n, segment in enumerate(three) if n != at]
    assert (
        all(sizes(left))
        and [type(one) for one in told] == [SegmentEdited, SegmentEdited]
        and not session.queued_targets()
    )


def test_one_that_is_deleted_is_found_by_something_else(session, three):
    """Others may look first, such as a panel that shows the segments."""
    ask(session, three)
    session.store.remove(three[0].segment_id)
    session.undo(three[1].segment_id)
    assert has_gone_on(session) and session.request_id is not None
    finish(session)
    assert sizes(three[1:])[1] > 0


def test_what_is_deleted_and_fails(session, three):
    ask(session, three)
    session.store.remove(three[0].segment_id)
    session.client.fails = True
    session.client.reply()
    session.client.fails = False
    finish(session)
    assert all(sizes(three[1:]))


def test_everything_is_deleted_before_the_answer(session, three, told):
    ask(session, three)
    session.store.is_gone = True
    finish(session)
    assert told == [] and not session.queued_targets()


@pytest.mark.parametrize("writes_half", [False, True])
@pytest.mark.parametrize("at", [0, 1])
def test_a_store_that_cannot_write(session, three, told, at, writes_half):
    ask(session, three)
    store = session.store
    store.broken, store.writes_half = {three[at].segment_id}, writes_half
    with pytest.raises(OSError, match="disk is full"):
        finish(session)
    finish(session)
    assert [type(one) for one in told] == [SegmentEdited, Refused, SegmentEdited] and "disk is full" in str(
        told[1].error
    )
    assert [size > 1 for size in sizes(three)] == [n != at for n in range(3)] and not session.queued_targets()
    store.broken = ()
    three[at].add(point(6, 2))
    assert mask_of(three[at])[0, 0, 0] == writes_half, "what was half written is somebody else's work"
    assert session.undo(three[at].segment_id) and sizes(three)[at] == int(writes_half)


def test_what_was_written_of_one_action_is_told_and_can_be_undone(session, told):
    session.store.broken = {"2"}
    with pytest.raises(OSError, match="disk is full"):
        add_to_both(session)
    both = [SegmentSession(session, key) for key in "12"]
    done, refused = told
    assert list(done.changes) == ["1"] and isinstance(refused, Refused) and sizes(both) == [25, 0]
    assert session.undo("1") and sizes(both) == [0, 0] and has_gone_on(session)


def test_a_store_that_cannot_be_read(session, three, told):
    ask(session, three)
    store = session.store
    store.broken = {("read", three[1].segment_id)}
    with pytest.raises(MemoryError):
        session.client.reply()
    assert isinstance(told[-1], Refused) and session.is_refused and sizes(three[:1]) == [0]
    store.broken = ()
    session.retry()
    finish(session)
    assert all(sizes(three)) and not session.queued_targets()


def test_a_client_that_cannot_be_asked(session, three, told):
    def submit(_):
        raise InferenceError("no worker can be started")

    session.client.submit, submits = submit, session.client.submit
    with pytest.raises(InferenceError):
        three[0].add(point(3))
    assert session.is_refused and isinstance(told[-1], Refused)
    session.client.submit = submits
    session.retry()
    assert sizes(three) == [25, 0, 0]


def test_a_neighbour_that_is_locked_keeps_its_voxels(session, three, told):
    three[0].add(point(3))
    session.options.policy = OverlapPolicy.PROTECT_LOCKED
    session.client.is_slow = True
    three[1].add(point(3, 4, 7))
    session.store.lock(three[0].segment_id, True)
    finish(session)
    assert sizes(three) == [25, 10, 0] and isinstance(told[-1], SegmentEdited)


@pytest.mark.parametrize("listener", ["on_outcome", "on_queued", "listeners"])
def test_a_listener_that_raises(session, three, listener):
    ask(session, three)
    heard = []

    def listen(what):
        heard.append(what)
        raise ZeroDivisionError

    setattr(session, listener, [listen] if listener == "listeners" else listen)
    with pytest.raises(ZeroDivisionError):
        if listener == "on_queued":
            session.discard(three[0].segment_id)
        session.client.is_slow = False
        session.client.reply()
    assert has_gone_on(session)
    if listener != "on_queued":
        assert len(heard) == 3 and all(sizes(three)), "the others are told, too"
    else:
        finish(session)
        assert [size > 0 for size in sizes(three)] == [False, True, True]


@pytest.mark.parametrize("call", ["confirm", "undo", "reject", "discard", "retry"])
def test_a_lock_while_an_answer_is_pending(session, three, told, call):
    session.options.ask_above = 0.5
    first, key = three[0], three[0].segment_id
    first.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
    first.add(BoxPrompt((ras(3, 2, 1), ras(3, 8, 9)), Polarity.NEGATIVE))
    session.store.lock(key, True)
    if call == "confirm":
        with pytest.raises(InputError, match="locked"):
            session.confirm()
        assert session.confirmation is not None and sizes(three) == [72, 0, 0]
        session.store.lock(key, False)
        session.confirm()
        assert sizes(three) == [9, 0, 0]
    else:
        getattr(session, call)(*() if call == "retry" else (key,))
        assert sizes(three) == [72, 0, 0]
    assert has_gone_on(session)


def test_objects_of_one_request_with_a_lock(session, told):
    session.client.is_slow = True
    keys = add_objects(session, [point(3), point(5)])
    session.store.lock(keys[0], True)
    with pytest.raises(InputError):
        finish(session)
    assert has_gone_on(session) and any(isinstance(one, Refused) for one in told)
