"""What a new mask may do to the other segments."""

from enum import StrEnum


class OverlapPolicy(StrEnum):
    """Who keeps a voxel that a segment wants and another segment already has.

    Attributes:
        PROTECT: the other segment, whichever it is.
        PROTECT_LOCKED: the other segment if it is locked; unlocked ones lose the voxel.
        ALLOW: both.
        OVERWRITE: the new one; every other segment, locked or not, loses the voxel.
    """

    PROTECT = "protect"
    PROTECT_LOCKED = "protect-locked"
    ALLOW = "allow"
    OVERWRITE = "overwrite"
