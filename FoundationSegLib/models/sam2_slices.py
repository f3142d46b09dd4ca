"""What SAM 2 sees of a slice and of its prompts: images and coordinates stretched to a square, masks as logits.

As ``Sam2Processor`` and ``Sam2VideoProcessor`` of transformers do it; the tests hold each against them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from .base import BoxXyxy, SliceMask, SlicePrompt
from .normalisation import IMAGENET, Normalisation

# A mask as logits: transformers' _use_mask_as_output, "very close to 0/1 in prob after sigmoid".
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
_BOX_LABELS = (2, 3)  # a box among points: its upper left and its lower right corner


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a checkpoint wants its images: (``size``, ``size``) pixels, then normalised (``Sam2ImageProcessor``)."""

    size: int
    normalisation: Normalisation = IMAGENET

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """What the encoder sees of (rows, columns) or (rows, columns, 3), uint8: (1, 3, size, size) float32, host.

        Stretched in 8 bits, bilinear with anti-aliasing.
        """
        colour = image if image.ndim == 3 else image[:, :, None]
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(colour, 2, 0)))[None]
        square = interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.normalisation(square)


@dataclass(frozen=True, slots=True)
class Sam2Embedding:
    """An encoded slice of ``shape`` (rows, columns).

    ``maps``, float32 on the model's device, are three levels from fine to coarse as the video model's cache has them:
    (S/4 * S/4, 1, C/8), (S/8 * S/8, 1, C/4) and (S/16 * S/16, 1, C), with S the side of the network's image.
    """

    maps: tuple[Tensor, ...]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes: 16 MB at 1024 pixels, 4 MB at 512."""
        return sum(level.nbytes for level in self.maps)


def to_network(xy: Tensor, shape: tuple[int, int], size: int) -> Tensor:
    """(..., 2) columns and rows of a slice of ``shape`` in the network's pixels, each axis stretched by its own.

    Rounded to float32 before it is scaled, as Sam2Processor does; SamProcessor scales in float64 (:mod:`.sam_prompts`).
    """
    rows, columns = shape
    return torch.stack((xy[..., 0] * (size / columns), xy[..., 1] * (size / rows)), dim=-1)


def point_tensors(prompt: SlicePrompt, shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor] | None:
    """A prompt's points as (1, 1, n, 2) float32 in the network's pixels and (1, 1, n) labels; None without points."""
    if not prompt.points:
        return None
    xy = torch.tensor([[[(point.x, point.y) for point in prompt.points]]], dtype=torch.float32)
    return to_network(xy, shape, size), torch.tensor([[[int(point.positive) for point in prompt.points]]])


def box_tensor(box: BoxXyxy, shape: tuple[int, int], size: int) -> Tensor:
    """A box as (1, 1, 4) float32 in the network's pixels."""
    corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2)
    return to_network(corners, shape, size).reshape(1, 1, 4)


def click_tensors(prompt: SlicePrompt, shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor]:
    """Box and points in one list of points, the box's corners first, as the video model takes them.

    (1, 1, n, 2) float32 in the network's pixels and (1, 1, n) labels, where 2 and 3 are corners.
    """
    xy, labels = [], []
    if prompt.box is not None:
        xy.append(box_tensor(prompt.box, shape, size).reshape(1, 1, 2, 2))
        labels.append(torch.tensor([[_BOX_LABELS]]))
    if points := point_tensors(prompt, shape, size):
        xy.append(points[0])
        labels.append(points[1])
    return torch.cat(xy, dim=2), torch.cat(labels, dim=2)


def mask_tensor(mask: SliceMask, size: int) -> Tensor:
    """A mask stretched to the network's image: (1, 1, size, size) float32, 0 or 1."""
    whole = torch.from_numpy(mask.unpack()).float()[None, None]
    if whole.shape[-2:] == (size, size):
        return whole
    stretched = interpolate(whole, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return (stretched >= 0.5).float()


def mask_as_logits(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask of (1, 1, S, S) as if the network had predicted it: (1, 1, *size) logits of -10 to 10."""
    return interpolate(mask * _MASK_SCALE + _MASK_BIAS, size=size, mode="bilinear", align_corners=False, antialias=True)


def mask_of(logits: Tensor, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(1, 1, h, w) logits of the network as a mask (rows, columns) = ``shape``."""
    full = interpolate(logits, size=shape, mode="bilinear", align_corners=False)
    return (full[0, 0] > 0).cpu().numpy()
