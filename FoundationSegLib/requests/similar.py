"""Requests for objects that look like an accepted one, in the same image or in others, and their answers."""

from dataclasses import dataclass

from ..imaging.geometry import Axis, Box
from ..imaging.masks import PackedMask
from .segmentation import CheckpointRecord


@dataclass(frozen=True, slots=True)
class SimilarRequest:
    """Find objects like one. Answered by :class:`SimilarObjects`.

    Attributes:
        request_id: a number that the answer repeats.
        model_id: a model that segments slices and takes boxes.
        example_key: the image of the example.
        mask: the example's voxels.
        targets: the images to search, which may be that image, too.
        intensity: the intensity policy.
        axis: slices across this axis are compared.
        most: so many proposals of each image at most.
    """

    request_id: int
    model_id: str
    example_key: str
    mask: PackedMask
    targets: tuple[str, ...]
    intensity: str = "auto"
    axis: Axis = "k"
    most: int = 12

    @property
    def volume_keys(self) -> tuple[str, ...]:
        """The images, each once."""
        return tuple(dict.fromkeys((self.example_key, *self.targets)))


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object that may be like the example: nobody has accepted it yet.

    Attributes:
        volume_key: the image that it is in.
        box: the box that the features propose.
        mask: the model's answer to that box, which is what accepting it writes.
        likeness: how much nearer the mask's features are to the example than to its surroundings, -1..1.
        score: the model's own estimate of the overlap (IoU), 0..1; None where it gives none.
    """

    volume_key: str
    box: Box
    mask: PackedMask
    likeness: float
    score: float | None


@dataclass(frozen=True, slots=True)
class SimilarObjects:
    """The answer: proposals, the most alike first.

    Attributes:
        request_id: that of the request.
        proposals: none of them overlaps the example, or another one by more than half.
        checkpoint: the weights that answered.
        notes: what was left out.
    """

    request_id: int
    proposals: tuple[Proposal, ...]
    checkpoint: CheckpointRecord
    notes: tuple[str, ...] = ()
