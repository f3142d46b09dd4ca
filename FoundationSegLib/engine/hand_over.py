"""What the mask of one slice becomes as the prompt of the next."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..models.protocols import SliceMask, SliceModel, SlicePoint, SlicePrompt
from ..requests.segmentation import HandOver

# What a model is asked with, the best first: a box says where the object ends, and nearly all of them understand it.
_KINDS = {"box": "box", "mask": "mask", "points": "point"}
# Parts of a mask that are smaller than this part of the largest get no point of their own.
_SMALLEST_PART = 0.1


def choose_hand_over(wanted: HandOver, prompts: Sequence[str]) -> HandOver:
    """How masks are handed over to a model that understands these kinds of prompts.

    Raises:
        InputError: the wanted way is none that the model understands.
    """
    usable = [way for way in get_args(HandOver) if _KINDS.get(way) in prompts]
    if wanted == "auto" and usable:
        return usable[0]
    if wanted not in usable:
        known = ", ".join(usable) or "nothing"
        raise InputError(f"the model cannot be asked with the {wanted} of a neighbouring slice, only with: {known}")
    return wanted


def handed_over(model: SliceModel, mask: NDArray[np.bool_], way: HandOver, wider: int = 0) -> SlicePrompt | None:
    """The prompt for the next slice that follows from a mask, (rows, columns); None for an empty mask."""
    if way == "box":
        box = model.box_around(mask, wider)
        return box and SlicePrompt(box)
    if not mask.any():
        return None
    return SlicePrompt(mask=SliceMask.pack(mask)) if way == "mask" else SlicePrompt(points=inner_points(mask))


def inner_points(mask: NDArray[np.bool_]) -> tuple[SlicePoint, ...]:
    """The most interior pixel of each connected part of a mask that counts, the largest part first.

    Most interior is what lies furthest from any pixel outside the part, beyond the edge of the slice included.
    """
    from scipy import ndimage

    padded = np.pad(mask, 1)
    depth = ndimage.distance_transform_edt(padded)
    parts, count = ndimage.label(padded)
    sizes = ndimage.sum_labels(padded, parts, range(1, count + 1))
    wanted = [n for n in np.argsort(-sizes, kind="stable") if sizes[n] >= _SMALLEST_PART * sizes.max()]
    deepest = ndimage.maximum_position(depth, parts, [n + 1 for n in wanted])
    return tuple(SlicePoint(float(column - 1), float(row - 1)) for row, column in deepest)
