"""Prompts: what a user says about a segment. Seven kinds, one value type each; positions are RAS in mm.

``kind`` is the name of a kind in the prompts file and on model cards.
"""

from enum import StrEnum
from typing import ClassVar, Literal, get_args

from ..catalog.model_cards import PromptKind
from ..codec import frozen
from ..imaging.geometry import Axis, Vector
from ..imaging.masks import PackedMask


class Polarity(StrEnum):
    """Polarity of a prompt: "this belongs to the segment", or "this does not"."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


@frozen
class ObliquePlane:
    """The plane of an oblique slice view: ``origin`` in mm, ``normal`` across it, ``up`` towards its top edge.

    ``normal`` and ``up`` need no unit length; ``up`` is taken without its part along ``normal``.
    """

    origin: Vector
    normal: Vector
    up: Vector


Plane = Axis | ObliquePlane


@frozen
class PointPrompt:
    """A click."""

    kind: ClassVar[PromptKind] = "point"
    position: Vector
    polarity: Polarity = Polarity.POSITIVE
    plane: Plane | None = None


@frozen
class BoxPrompt:
    """A box along the voxel axes, given by two opposite corners, both inside."""

    kind: ClassVar[PromptKind] = "box"
    corners: tuple[Vector, Vector]
    polarity: Polarity = Polarity.POSITIVE
    plane: Plane | None = None


@frozen
class ScribblePrompt:
    """A stroke through ``points``; ``radius_mm`` None means half the smallest in-plane spacing."""

    kind: ClassVar[PromptKind] = "scribble"
    points: tuple[Vector, ...]
    radius_mm: float | None = None
    polarity: Polarity = Polarity.POSITIVE
    plane: Plane | None = None


@frozen
class LassoPrompt:
    """A closed, planar outline through ``points``; the last is joined to the first."""

    kind: ClassVar[PromptKind] = "lasso"
    points: tuple[Vector, ...]
    polarity: Polarity = Polarity.POSITIVE
    plane: Plane | None = None


@frozen
class MaskPrompt:
    """A segment of a file: ``file`` is relative to the prompts file, ``segment`` its name there.

    ``voxels`` are those of the segment, on the grid of the image; None until somebody has read the file. They are no
    part of a prompts file.
    """

    kind: ClassVar[PromptKind] = "mask"
    file: str
    segment: str
    polarity: Polarity = Polarity.POSITIVE
    voxels: PackedMask | None = None


@frozen
class TextPrompt:
    """Free words."""

    kind: ClassVar[PromptKind] = "text"
    text: str
    polarity: Polarity = Polarity.POSITIVE


@frozen
class ClassPrompt:
    """One of the names that the model was trained on."""

    kind: ClassVar[PromptKind] = "class"
    name: str
    polarity: Polarity = Polarity.POSITIVE


WORDS = (TextPrompt, ClassPrompt)  # prompts that have no place
Prompt = PointPrompt | BoxPrompt | ScribblePrompt | LassoPrompt | MaskPrompt | TextPrompt | ClassPrompt

PROMPT_TYPES: dict[PromptKind, type[Prompt]] = {prompt_type.kind: prompt_type for prompt_type in get_args(Prompt)}


@frozen
class SegmentPrompts:
    """All prompts of one segment, in the order in which they were given; never empty."""

    name: str
    prompts: tuple[Prompt, ...]


Space = Literal["ras", "ijk"]


@frozen
class PromptSet:
    """A whole prompts file: at least one segment, each name once.

    ``space`` says what the positions are: ``"ras"`` in mm, or ``"ijk"`` voxel indices (i, j, k) as written.
    """

    segments: tuple[SegmentPrompts, ...]
    space: Space = "ras"
