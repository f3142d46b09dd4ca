"""What a session tells: what a change did, what it would do, and what failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import FoundationSegError
from .mask import SegmentChange

What = Literal["predicted", "noted", "undone", "redone", "rejected"]


@dataclass(frozen=True, slots=True)
class Done:
    """Something was written, or taken back.

    Attributes:
        what: how it came about.
        changes: what segments gained and lost, by id; several changes of one segment one after the other.
        created: the ids of segments that came into being with it, empty ones that waited for it included.
        removed: the ids of segments that went with it, because it was their coming into being that was undone.
        scores: the model's own estimates of the overlap, 0..1, by segment id.
        notes: what the model had to say.
        forgotten: how many of the oldest actions can no longer be undone, for want of room in the history.
    """

    what: What
    changes: Mapping[str, tuple[SegmentChange, ...]]
    created: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer that would take away more than was agreed on. Nothing is written until it is confirmed.

    Attributes:
        changes: what segments would gain and lose, by id.
        lost_share: the largest part of a segment that would go, 0..1.
        by_hand: how many voxels would change that were drawn or erased by hand.
    """

    changes: Mapping[str, SegmentChange]
    lost_share: float
    by_hand: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request failed, or its answer cannot be written.

    Attributes:
        error: why.
        is_waiting: what it was for waits to be asked again, alone or with the next prompt, or to be discarded;
            otherwise it was given up.
    """

    error: FoundationSegError
    is_waiting: bool = True


@dataclass(frozen=True, slots=True)
class ImageChanged:
    """Somebody changed the voxels of the image. Segments and steps stay as they are; what is asked next is of the new
    image, and so is what was under way.
    """


Outcome = Done | Pending | Refused | ImageChanged
