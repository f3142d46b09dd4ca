"""Whether a task fits into the memory that is left, and what to do where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.cards import ModelCard
from ..core.cropping import around_prompts, largest_box_around
from ..core.errors import MemoryShortageError
from ..core.geometry import Box
from ..core.placement import prompt_positions
from ..core.prompts import MaskPrompt
from ..core.sizes import bytes_text
from .tasks import Task

# What a model sees around the prompts at the least, in mm: without surroundings, it says nothing of use.
_LEAST_MARGIN_MM = 10.0
# Of what is free, this much may be planned with: other programs want some, and forecasts are not exact.
_USABLE = 0.8
# A model that ran out of memory is asked again about a part of this share of the voxels.
_SMALLER = 4


@dataclass(frozen=True, slots=True)
class Left:
    """Memory that can still be taken, in bytes, as far as it is known.

    Attributes:
        host: main memory.
        device: of the device that computes; the same for the CPU.
        limit: what the user limits it to, if that is why it is no more.
    """

    host: int | None
    device: int | None
    limit: int | None = None

    @property
    def why(self) -> str:
        """What limits it, for messages."""
        return "" if self.limit is None else f" of the {bytes_text(self.limit)} that it is limited to"


def forecast_load(card: ModelCard, device: str, left: Left, catalogue: Mapping[str, ModelCard]) -> tuple[str, ...]:
    """Notes on a model that is about to be loaded, where its card says that it takes more than is left.

    Raises:
        MemoryShortageError: its weights alone do not fit into what the user limits it to, or into main memory.
    """
    weights = card.source.bytes
    if left.host is not None and weights > left.host:
        free_text = f"{bytes_text(left.host)}{left.why} are free"
        message = f"the weights of {card.title} take {bytes_text(weights)}, and {free_text}"
        raise MemoryShortageError(f"{message}: {remedies(card, device, left, catalogue)}")
    needed = (card.memory_mb or {}).get(device, 0) * 10**6
    free = left.host if device == "cpu" else left.device
    if free is None or needed <= free:
        return ()
    basis = (card.memory_basis or {}).get(device, "estimated")
    what = f"{card.title} takes up to {bytes_text(needed)} ({basis}), and {bytes_text(free)}{left.why} are free"
    return (f"{what}; if they do not do: {remedies(card, device, left, catalogue)}",)


def fitting_box(task: Task, left: Left, catalogue: Mapping[str, ModelCard]) -> Box | None:
    """The part of a task's image, counted in the whole, that fits; None where all of it does, or nobody can tell.

    The part depends on the prompts and, in powers of two, on the memory: a little more or less of it changes nothing.

    Raises:
        MemoryShortageError: not even what is around the prompts fits, or prompts are words, which are about all of it.
    """
    each, free = task.card.bytes_per_voxel, left.host
    voxels = int(np.prod(task.volume.geometry.shape_kji, dtype=np.int64))
    if not each or free is None or voxels * each <= free * _USABLE:
        return None
    allowed = int(free * _USABLE) // each
    box = part_around(task, 1 << max(0, allowed.bit_length() - 1))
    if box is None:
        needed, there = bytes_text(voxels * each), bytes_text(free)
        message = f"{task.card.title} takes {needed} for an image of this size, and {there}{left.why} are free"
        raise MemoryShortageError(f"{message}: {remedies(task.card, 'cpu', left, catalogue)}")
    return box


def part_around(task: Task, voxels: int) -> Box | None:
    """The part around a task's prompts, in the whole image, with no more than a number of voxels; None for none."""
    prompts = [prompt for segment in task.request.segments for prompt in segment.prompts]
    if not all(isinstance(prompt, MaskPrompt) or prompt_positions(prompt) for prompt in prompts):
        return None
    geometry, seen = task.whole.geometry, task.box or task.whole.geometry.box
    inner = around_prompts(prompts, _LEAST_MARGIN_MM, geometry).intersection(seen)
    return largest_box_around(inner, voxels, seen)


def smaller_box(task: Task) -> Box | None:
    """A part to ask about again where memory ran out; None where there is no smaller one."""
    voxels = int(np.prod(task.volume.geometry.shape_kji, dtype=np.int64))
    return part_around(task, voxels // _SMALLER) if task.card.sees_volumes else None


def remedies(card: ModelCard, device: str, left: Left, catalogue: Mapping[str, ModelCard]) -> str:
    """What a user can do where memory is short."""
    found = ["close other programs or raise the limit" if left.limit is not None else "close other programs"]
    found.append("limit the model to a region of interest")
    if card.sees_volumes:
        found.append("resample the image to larger voxels")
    if device != "cpu":
        found.append("compute on the CPU")
    smaller = smaller_models(card, device, catalogue)
    if smaller:
        found.append(f"use a smaller model ({', '.join(smaller)})")
    return ", ".join(found[:-1]) + f", or {found[-1]}"


def smaller_models(card: ModelCard, device: str, catalogue: Mapping[str, ModelCard], most: int = 2) -> list[str]:
    """The largest models that take all kinds of prompts that a model does, and less memory."""
    needed = (card.memory_mb or {}).get(device) or card.source.bytes // 10**6
    others = [
        (amount, other.id)
        for other in catalogue.values()
        if other.id != card.id
        and other.task == card.task
        and set(other.prompts) >= set(card.prompts)
        and (amount := (other.memory_mb or {}).get(device, 0))
        and amount < needed
    ]
    return [name for _, name in sorted(others, reverse=True)[:most]]
