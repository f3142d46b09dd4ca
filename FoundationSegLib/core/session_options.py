"""What a session goes by."""

from dataclasses import dataclass

from .overlap import OverlapPolicy
from .steps import ModelChoice


@dataclass(slots=True)
class Options:
    """What a session goes by; may be changed at any time, for what comes after.

    Attributes:
        choice: which model answers.
        policy: who keeps voxels that a segment wants and another has.
        ask_above: the part of a segment, 0..1, that a prompt may delete without being confirmed; voxels that were
            drawn or erased by hand are asked for in any case. None: never ask.
    """

    choice: ModelChoice | None = None
    policy: OverlapPolicy = OverlapPolicy.PROTECT
    ask_above: float | None = 0.5
