"""Questions to a session: its segments, their voxels, steps and names, and what can be undone."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from .pending_edit import AskedEdits, PendingEdit
from .segment_history import SegmentHistory
from .segment_store import Confirmation, SavedSegment, SegmentStore, read_segment
from .steps import SegmentState, Steps


class SessionQueries:
    """The part of a :class:`~.session.Session` that answers questions, so that nobody has to reach through it.

    Attributes:
        volume: the image.
        store: where the segments are.
        history: what was written.
    """

    __slots__ = ()

    volume: Volume
    store: SegmentStore
    history: SegmentHistory
    _queue: list[PendingEdit]
    _asked: AskedEdits | None
    _is_refused: bool

    @property
    def confirmation(self) -> Confirmation | None:
        """The answer that waits to be confirmed or discarded."""
        return self._asked.confirmation if self._asked is not None else None

    @property
    def is_refused(self) -> bool:
        """True while what failed waits for :meth:`retry`, :meth:`discard`, or the next edit."""
        return self._is_refused and bool(self._queue)

    @property
    def asked_ids(self) -> tuple[str, ...]:
        """The segments that the request under way is about, in its order; none while there is none."""
        plans = self._asked.plans if self._asked is not None and self._asked.answers is None else ()
        return tuple([plan.segment_id for of_edit in plans for plan in of_edit if plan.prompts])

    @property
    def is_propagating(self) -> bool:
        """True while the request under way carries segments on through the volume."""
        request = self._asked.request if self._asked is not None and self._asked.answers is None else None
        return request is not None and request.propagation is not None

    @property
    def waiting(self) -> int:
        """The number of edits that wait for another one's answer."""
        return len(self._queue) - (len(self._asked.edits) if self._asked is not None else 0)

    @property
    def is_gone(self) -> bool:
        """True once the image or the segmentation was deleted, and while a sequence shows another frame.

        Nothing can be read or written then.
        """
        return self.store.is_gone

    @property
    def segment_ids(self) -> tuple[str, ...]:
        """The ids of all segments; none once they are gone."""
        return () if self.store.is_gone else self.store.segment_ids

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The segments that the session met, the only ones that it has steps of."""
        return tuple(self.history.segments)

    @property
    def last_changed(self) -> str:
        """The id of a segment of the last edit that can be undone; empty where there is none."""
        done = self.history.undo_stack.done
        return next(reversed(done[-1].after), "") if done else ""

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
        """The number of voxels of a segment. Raises as :meth:`steps`."""
        self.detect_external_changes()
        return self.history.segment(segment_id).voxels

    def saved(self, segment_id: str) -> SavedSegment:
        """The part of a segment that is kept for a later session. Raises as :meth:`steps`."""
        self.history.segment(segment_id)
        return self.history.saved(segment_id)

    def can_read(self, segment_id: str) -> bool:
        """True for a segment that is there and can be read now."""
        is_known = segment_id in self.history.segments
        return segment_id in self.segment_ids and (is_known or self.store.is_readable)

    def can_undo(self, segment_id: str) -> bool:
        """True where something of a segment can be undone, be it that it still waits for an answer."""
        is_queued = segment_id in self.queued_targets()
        return not self.is_gone and (is_queued or self.history.undo_stack.last(segment_id) is not None)

    def can_redo(self, segment_id: str) -> bool:
        """True where something of a segment can be done again."""
        is_queued = segment_id in self.queued_targets()
        return not self.is_gone and not is_queued and self.history.can_redo(segment_id)

    def can_reject(self, segment_id: str) -> bool:
        """True where a segment has a change that was neither accepted nor rejected."""
        if segment_id in self.queued_targets():
            return not self.is_gone
        return segment_id in self.segment_ids and self.history.last_change(segment_id) is not None

    def steps(self, segment_id: str) -> Steps:
        """The steps of a segment, written ones first, then those that wait for an answer.

        Raises:
            GoneError: the segment was deleted.
            InputError, GeometryError: it is kept so that its voxels cannot be read.
        """
        self.detect_external_changes()
        return self.state(segment_id).steps

    def written_state(self, segment_id: str) -> SegmentState:
        """The state that the written steps of a segment come to. Raises as :meth:`steps`."""
        self.detect_external_changes()
        return self.history.segment(segment_id).state
