"""Random things that users, scripts, workers and scenes do to a session, and what must hold after each of them."""

import json

import numpy as np

from FoundationSegLib.errors import FoundationSegError, GoneError, InputError
from FoundationSegLib.imaging.geometry import Box, as_vector
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.prompts import kinds
from FoundationSegLib.prompts.regions import AroundPrompt, InsideBox, SliceRange
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segment_store import OverlapPolicy, Refused, SegmentEdited
from FoundationSegLib.session.segments import SegmentSession, add_objects
from FoundationSegLib.session.steps import SeedStep
from Testing.unit.session.session_cases import CHOICES, make_session, segment_of

OPERATIONS = {
    "add": 20,
    "remove": 4,
    "move": 5,
    "turn": 3,
    "propagate": 4,
    "limit": 3,
    "undo": 12,
    "redo": 8,
    "accept": 1,
    "reject": 3,
    "switch": 6,
    "paint": 4,
    "policy": 3,
    "model": 3,
    "kill": 3,
    "late": 4,
    "objects": 2,
    "create": 1,
    "delete": 1,
    "lock": 1,
    "ask_again": 1,
    "caution": 2,
    "meanwhile": 4,
}


class Machine:
    """A session, and its segments as they must be: ``start`` is what undoing everything leads back to."""

    foreign = ("paint", "delete")  # operations that are somebody else's

    def __init__(self, seed, session=None, client=None):
        self.rng = np.random.default_rng(seed)
        self.session, self.client = (session, client) if session else make_session(ask_above=None)
        self.store = self.session.store
        self.whole = Box((0, 0, 0), self.store.geometry.shape_kji)
        for name in "AB":
            segment_of(self.session, name)
        self.active = self.store.segment_ids[0]
        self.names = list(OPERATIONS)
        weights = np.array(list(OPERATIONS.values()), float)
        self.weights = weights / weights.sum()
        self.counts = dict.fromkeys(self.names, 0)
        self.outcomes, self._listen = [], self.session.on_outcome
        self.session.on_outcome = self.listen

    def listen(self, outcome):
        self.outcomes.append(outcome)
        self._listen(outcome)

    @property
    def segment(self):
        return SegmentSession(self.session, self.active)

    def masks(self):
        return {key: self.store.read(key, self.whole) for key in self.store.segment_ids}

    def step(self):
        name = str(self.rng.choice(self.names, p=self.weights))
        policy, before = self.session.options.policy, self.masks()
        waiting = set(self.session.queued_targets())
        try:
            touched = getattr(self, name)()
        except GoneError:
            raise
        except FoundationSegError:
            touched = {self.active}
            self.counts["refused"] = self.counts.get("refused", 0) + 1
            self.session.discard()
        self.counts[name] += 1
        self.check_queue(name)
        self.decide()
        self.check_queue("decide")
        self.be_somewhere()
        after = self.masks()
        if name not in self.foreign and policy in (OverlapPolicy.PROTECT, OverlapPolicy.ALLOW):
            for key in before.keys() & after.keys() - self.allowed(name, touched) - waiting:
                assert np.array_equal(before[key], after[key]), f"{name} changed {key}, which it must not"
        return name

    def check_queue(self, name):
        """Nothing waits while no request is out, nothing is pending and nothing was refused."""
        session = self.session
        waits = session.request_id is not None or session.confirmation is not None or session.is_refused
        assert waits or not session.queued_targets(), f"{name} left something in the queue for ever"

    def be_somewhere(self):
        """Undoing takes segments away that the session made; the user goes on with another one."""
        if self.active not in self.store.segment_ids:
            if not self.store.segment_ids:
                segment_of(self.session, "New")
            self.active = self.store.segment_ids[0]

    def allowed(self, name, touched):
        """The segments that an operation may change; undo may give back what an overwriting action took."""
        return {self.active} | (touched or set())

    def point(self):
        k, j, i = (int(self.rng.integers(0, n)) for n in self.store.geometry.shape_kji)
        return as_vector(self.store.geometry.to_ras((i, j, k)))

    def prompt(self):
        rng, polarity = self.rng, kinds.Polarity.NEGATIVE if self.rng.random() < 0.2 else kinds.Polarity.POSITIVE
        plane = str(rng.choice(["i", "j", "k"], p=[0.1, 0.1, 0.8]))
        x, y, z = self.point()
        kind = rng.integers(0, 10)
        if kind < 4:
            return kinds.PointPrompt((x, y, z), polarity, plane)
        if kind < 6:
            depth = float(rng.integers(0, 3))
            wide = (x + float(rng.integers(1, 4)), y + float(rng.integers(1, 4)), z + depth)
            return kinds.BoxPrompt(((x, y, z), wide), polarity)
        if kind == 6:
            return kinds.ScribblePrompt(((x, y, z), (x + 2.0, y, z)), None, polarity)
        if kind == 7:
            return kinds.LassoPrompt(((x, y, z), (x + 2.0, y, z), (x, y + 2.0, z)), polarity)
        if kind == 8:
            return kinds.MaskPrompt("seed.nrrd", "Any", polarity, self.random_mask())
        return kinds.TextPrompt("liver", polarity) if rng.random() < 0.5 else kinds.ClassPrompt("liver", polarity)

    def random_mask(self):
        mask = np.zeros(self.store.geometry.shape_kji, bool)
        low = [int(self.rng.integers(0, n)) for n in mask.shape]
        mask[tuple(slice(n, n + 3) for n in low)] = (
            self.rng.random(mask[tuple(slice(n, n + 3) for n in low)].shape) < 0.7
        )
        mask[tuple(low)] = True
        return pack_mask(mask)

    def key(self):
        keys = list(self.segment.prompts)
        return keys[int(self.rng.integers(len(keys)))] if keys else "none"

    def add(self):
        self.segment.add(*(self.prompt() for _ in range(1 + (self.rng.random() < 0.2))))

    def remove(self):
        self.segment.remove(self.key())

    def move(self):
        self.segment.move(self.key(), self.prompt())

    def turn(self):
        self.segment.set_polarity(self.key(), kinds.Polarity(str(self.rng.choice(list(kinds.Polarity)))))

    def propagate(self):
        start = int(self.rng.integers(0, 5))
        whole = self.rng.random() < 0.5
        self.segment.propagate(None if whole else Propagation(start, start + int(self.rng.integers(1, 4))))

    def limit(self):
        k, j, i = (int(self.rng.integers(0, 6)) for _ in range(3))
        regions = (None, AroundPrompt(2.5), SliceRange("k", k, k + 2), InsideBox(Box((k, j, i), (k + 4, j + 4, i + 4))))
        self.segment.limit(regions[int(self.rng.integers(len(regions)))])

    def undo(self):
        """Undo, and every second time redo and undo again: the segments must be the same each time."""
        self.session.detect_external_changes()
        if self.session.discard(self.active):
            return None
        entry = self.session.history.undo_stack.last(self.active)
        before, steps = self.masks(), self.steps()
        if not self.session.undo(self.active):
            assert entry is None
            return None
        undone = self.masks()
        if self.rng.random() < 0.5:
            assert self.session.redo(self.active)
            assert same(self.masks(), before) and self.steps() == steps
            assert self.session.undo(self.active)
            assert same(self.masks(), undone)
        return set(entry.after)

    def redo(self):
        before = self.undone_ids()
        withdrawn = sorted(before - set(self.store.segment_ids))
        if withdrawn and self.rng.random() < 0.5:
            self.active = withdrawn[int(self.rng.integers(len(withdrawn)))]
        self.session.redo(self.active)
        return before

    def undone_ids(self):
        return {key for entry in self.session.history.undo_stack.undone for key in entry.after}

    def caution(self):
        """How much may go without being asked."""
        self.session.options.ask_above = (None, 0.0, 0.3)[int(self.rng.integers(3))]

    def decide(self):
        """What waits to be confirmed is confirmed, discarded, or left; it must not be written by then."""
        pending = self.session.confirmation
        if pending is not None:
            self.counts["pending"] = self.counts.get("pending", 0) + 1
            if self.rng.random() < 0.5:
                self.confirm()
            elif self.rng.random() < 0.7:
                self.session.discard()

    def confirm(self):
        """What cannot be written any more is refused in words, and nothing of it is there."""
        before = self.masks()
        try:
            self.session.confirm()
        except GoneError:
            raise
        except FoundationSegError:
            assert same(self.masks(), before)
            self.counts["refused"] = self.counts.get("refused", 0) + 1
            self.session.discard()

    def accept(self):
        self.session.accept(self.active)

    def reject(self):
        entry = self.session.history.undo_stack.last(self.active)
        self.session.reject(self.active)
        return set(entry.after) if entry else None

    def switch(self):
        self.active = str(self.rng.choice(self.store.segment_ids))

    def paint(self):
        """Somebody else paints into, erases from or clears a segment, seen or not seen by the session."""
        key = str(self.rng.choice(self.store.segment_ids))
        mask = self.store.read(key, self.whole)
        corner = tuple(slice(n, n + 3) for n in (int(self.rng.integers(0, size)) for size in mask.shape))
        mask[corner] = self.rng.random() < 0.6
        if self.rng.random() < 0.1:
            mask[:] = False
        self.by_hand(key, mask)

    def by_hand(self, key, mask):
        self.store.put(key, mask)

    def policy(self):
        self.session.options.policy = list(OverlapPolicy)[int(self.rng.choice(4, p=[0.7, 0.1, 0.1, 0.1]))]

    def model(self):
        self.session.options.choice = CHOICES[int(self.rng.integers(len(CHOICES)))]

    def kill(self):
        """The worker dies: nothing is written; what was asked goes with the next prompt, or is discarded."""
        before, self.client.fails = self.masks(), True
        try:
            self.add()
        finally:
            self.client.fails = False
        assert same(self.masks(), before)
        if self.rng.random() < 0.5:
            self.session.discard()
        else:
            self.session.retry()

    def late(self):
        """Several prompts before the answer; answers to the older ones come, too; somebody paints meanwhile."""
        self.client.is_slow, before = True, len(self.client.requests)
        painted = None
        try:
            for _ in range(2):
                self.add()
            if self.rng.random() < 0.5:
                painted = self.paint()
        finally:
            self.client.is_slow = False
        for number in range(before, len(self.client.requests)):
            self.client.reply(number)
        assert self.session.request_id is None
        return set(self.store.segment_ids) if painted is None else None

    def meanwhile(self):
        """Segments are locked or deleted while answers are out, some of them for several at once."""
        self.client.is_slow, out = True, len(self.client.requests)
        try:
            for _ in range(3):
                self.switch()
                if not self.store.is_locked(self.active):
                    self.segment.add(self.prompt())
            self.objects()
        finally:
            self.client.is_slow = False
        keys = [key for key in self.store.segment_ids if self.rng.random() < 0.4 and not self.store.is_locked(key)]
        for key in keys:
            self.set_locked(key, True)
        if self.rng.random() < 0.2 and len(self.store.segment_ids) > 3:
            self.remove_segment(self.store.segment_ids[-1])
        is_overwriting = self.session.options.policy is OverlapPolicy.OVERWRITE  # neighbours, locked or not
        locked = {key: mask for key, mask in self.masks().items() if self.store.is_locked(key) and not is_overwriting}
        self.outcomes.clear()
        before = self.masks()
        for number in range(out, len(self.client.requests)):
            try:
                self.client.reply(number)
            except InputError:
                assert any(isinstance(one, Refused) and not one.is_waiting for one in self.outcomes)
        after = self.masks()
        assert all(np.array_equal(mask, after[key]) for key, mask in locked.items())
        changed = {key for key in before.keys() & after.keys() if not np.array_equal(before[key], after[key])}
        told = {key for one in self.outcomes if isinstance(one, SegmentEdited) for key in one.changes}
        assert changed <= told, "what was written is told"
        for key in keys:
            if key in self.store.segment_ids:
                self.set_locked(key, False)
        return set(self.store.segment_ids)

    def objects(self):
        if len(self.store.segment_ids) < 6:
            return set(add_objects(self.session, [self.prompt() for _ in range(2)]))
        return None

    def create(self):
        segment_of(self.session, "New")

    def delete(self):
        """A segment is deleted, sometimes while a request for it is out; its late answer must change nothing."""
        if len(self.store.segment_ids) < 3:
            return
        self.client.is_slow = True
        out = len(self.client.requests)
        try:
            self.add()
        finally:
            self.client.is_slow = False
        self.remove_segment(self.active)
        before = self.masks()
        for number in range(out, len(self.client.requests)):
            self.client.reply(number)
        assert same(self.masks(), before)
        self.active = self.store.segment_ids[0]

    def remove_segment(self, key):
        self.store.remove(key)

    def lock(self):
        self.set_locked(self.active, self.rng.random() < 0.3)

    def set_locked(self, key, is_locked):
        self.store.lock(key, is_locked)

    def ask_again(self):
        self.segment.ask_again(self.session.options.choice)

    def steps(self):
        return {key: self.session.written_state(key).steps for key in self.session.known_ids}

    def check_replay(self):
        """The steps of every segment, through JSON, on a fresh session give the same masks."""
        self.session.discard()
        self.session.detect_external_changes()
        fresh, client = make_session(ask_above=None, shape=self.store.geometry.shape_kji)
        client.radius = getattr(self.client, "radius", client.radius)
        for key in self.session.known_ids:
            document = json.loads(json.dumps(SegmentSession(self.session, key).to_document()))
            target = segment_of(fresh, key)
            if document["steps"]:
                target.replay_document(document)
            replayed = fresh.store.read(target.segment_id, self.whole)
            assert np.array_equal(replayed, self.store.read(key, self.whole)), f"{key} is another one after its replay"

    def check_undo_all(self):
        """Undoing everything leads to where each segment was when it was last seen to be somebody else's work."""
        history, start, before = self.session.history, {}, {}
        self.redo_all()
        for key in self.store.segment_ids:
            entries = [entry for entry in history.undo_stack.done if key in entry.after]
            start[key] = entries[0].before[key] if entries else self.session.written_state(key)
        made = {key for kept in history.undo_stack.done for key in kept.created if not self.store.is_locked(key)}
        before, states = self.masks(), self.steps()
        while history.undo_stack.done:
            assert [
                key
                for key in self.store.segment_ids
                if not history.undo_stack.blocking_undo(key) and self.session.undo(key)
            ]
        masks = self.masks()
        assert not made & masks.keys(), "undoing that it was made takes a segment away"
        for key, state in start.items():
            if key in made:
                continue
            assert self.session.written_state(key) == state
            if not state.steps:
                assert not masks[key].any()
            elif isinstance(state.steps[-1], SeedStep):
                assert np.array_equal(masks[key], history.masks.get(state.steps[-1].mask).expand(masks[key].shape))
        self.redo_all()
        assert same(self.masks(), before) and self.steps() == states

    def redo_all(self):
        undo_stack = self.session.history.undo_stack
        while undo_stack.undone:
            ids = sorted(self.undone_ids())
            assert [key for key in ids if not undo_stack.blocking_redo(key) and self.session.redo(key)]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
