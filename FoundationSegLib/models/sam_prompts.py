"""What goes into SAM's network and comes out of it, in pixels of the slice: coordinates, masks, boxes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .base import BoxXyxy, SliceMask, SlicePoint
from .resize import longest_side_shape

# By how much the box for a neighbouring slice exceeds the mask, of the side of the network's image. LiteMedSAM's
# authors take 3 of its 256 pixels (CVPR24_LiteMedSAM_infer.py); nobody has published one for SAM or MedSAM.
NEIGHBOUR_MARGIN = 3 / 256
# How sure a mask prompt is of each of its pixels: log-odds of 0.999, as in micro-sam's _compute_logits_from_mask.
MASK_LOGIT = math.log((1 - 1e-3) / 1e-3)

Scale = tuple[float, float]


def scale_to(resized: tuple[int, int], shape: tuple[int, int]) -> Scale:
    """By how much x and y grow from a slice (rows, columns) to what it was resized to (SamProcessor)."""
    return resized[1] / shape[1], resized[0] / shape[0]


def point_tensors(points: Sequence[SlicePoint], scale: Scale, device: str) -> tuple[Tensor, Tensor]:
    """Points for the network, (1, 1, points, 2), and their labels, (1, 1, points)."""
    places = [(point.x * scale[0], point.y * scale[1]) for point in points]
    labels = [int(point.positive) for point in points]
    return torch.tensor([[places]], dtype=torch.float32, device=device), torch.tensor([[labels]], device=device)


def scaled_box(box: BoxXyxy, scale: Scale) -> BoxXyxy:
    """A box with its x and y multiplied."""
    x0, y0, x1, y1 = (n * factor for n, factor in zip(box, scale * 2, strict=True))
    return x0, y0, x1, y1


def box_tensor(box: BoxXyxy, scale: Scale, device: str) -> Tensor:
    """A box for the network, (1, 1, 4)."""
    return torch.tensor([[scaled_box(box, scale)]], dtype=torch.float32, device=device)


def mask_tensor(mask: SliceMask, size: int, device: str) -> Tensor:
    """What is known of an object as logits for the network, (1, 1, size, size).

    As in micro-sam (prompt_based_segmentation.py, _compute_logits_from_mask, commit 3acdcd72): the mask itself is
    resized to its longest side, cut at a half and padded with background, and only then turned into log-odds.

    Where every pixel of the network sees less than half an object, those that see most of it stand for it.
    """
    known = torch.from_numpy(mask.unpack()).to(torch.float32)[None, None]
    shape = longest_side_shape(mask.shape, size)
    small = functional.interpolate(known, shape, mode="bilinear", align_corners=False, antialias=True)
    inside = small > min(0.5, 0.99 * float(small.max()))
    padded = functional.pad(inside, (0, size - shape[1], 0, size - shape[0]))
    return torch.where(padded, MASK_LOGIT, -MASK_LOGIT).to(device)


def unpadded(logits: Tensor, size: int, resized: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Logits (1, 1, size / 4, size / 4) on the slice, (rows, columns) = ``shape``: transformers' post_process_masks."""
    large = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    large = large[..., : resized[0], : resized[1]]
    return functional.interpolate(large, shape, mode="bilinear", align_corners=False)[0, 0]


def as_score(predicted: Tensor) -> float:
    """The network's guess of its own IoU, which may leave its range, 0..1."""
    return min(1.0, max(0.0, float(predicted)))


def box_around(mask: NDArray[np.generic], margin: Scale, limit: Scale) -> BoxXyxy | None:
    """The box around what is not zero, wider by ``margin`` (x, y), between zero and ``limit``; None for an empty mask.

    Both corners of a margin of zero are in the object.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return None
    x0, y0 = (max(0, int(n.min()) - by) for n, by in zip((columns, rows), margin, strict=True))
    x1, y1 = (min(end, int(n.max()) + by) for n, by, end in zip((columns, rows), margin, limit, strict=True))
    return x0, y0, x1, y1


def box_for_neighbour(mask: NDArray[np.bool_], scale: Scale, size: int, wider: int) -> BoxXyxy | None:
    """The box to ask a neighbouring slice with: around this slice's mask, and wider by the usual margin and more.

    Args:
        mask: (rows, columns).
        scale: by how much x and y grow from the slice to the network.
        size: the side of the network's image, in pixels.
        wider: by how many of the network's pixels the margin exceeds the usual one.
    """
    margin = NEIGHBOUR_MARGIN * size + wider
    rows, columns = mask.shape
    return box_around(mask, (margin / scale[0], margin / scale[1]), (columns - 1, rows - 1))
