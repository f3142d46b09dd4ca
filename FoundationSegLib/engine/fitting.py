"""Whether a task fits into the memory that is left, and what to do where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..catalog.model_cards import ModelCard
from ..errors import MemoryShortageError
from ..imaging.geometry import Box
from ..progress import bytes_text
from ..prompts.kinds import ClassPrompt, MaskPrompt, TextPrompt
from ..prompts.placement import prompt_positions
from ..prompts.regions import around_prompts, largest_box_around
from .tasks import Task

# What a model sees around the prompts at the least, in mm: without surroundings, it says nothing of use.
_LEAST_MARGIN_MM = 10.0
# Of what is free, this much may be planned with: other programs want some, and forecasts are not exact.
_USABLE = 0.8
# A model that ran out of memory is asked again about a part of this share of the voxels.
_SMALLER = 4
# How far a tile reaches beyond where its answer counts, in voxels: half of the window that such models look through.
_OVERLAP = 32


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


def allowed_voxels(task: Task, left: Left) -> int | None:
    """How many voxels of an image a model may see at once; None where all of it fits, or nobody can tell.

    A power of two, so that a little more or less memory changes nothing.
    """
    each, free = task.card.bytes_per_voxel, left.host
    if not each or free is None or _voxels(task) * each <= free * _USABLE:
        return None
    return 1 << max(0, (int(free * _USABLE) // each).bit_length() - 1)


def too_large(task: Task, left: Left, catalogue: Mapping[str, ModelCard]) -> MemoryShortageError:
    """What to say where no part of an image would do."""
    needed, there = bytes_text(_voxels(task) * task.card.bytes_per_voxel), bytes_text(left.host or 0)
    message = f"{task.card.title} takes {needed} for an image of this size, and {there}{left.why} are free"
    return MemoryShortageError(f"{message}: {remedies(task.card, 'cpu', left, catalogue)}")


def smaller_voxels(task: Task) -> int:
    """How many voxels to ask about again where memory ran out."""
    return _voxels(task) // _SMALLER


def _voxels(task: Task) -> int:
    return int(np.prod(task.volume.geometry.shape_kji, dtype=np.int64))


def part_around(task: Task, voxels: int) -> Box | None:
    """The part around a task's prompts, in the whole image, with no more than a number of voxels; None for none."""
    prompts = [prompt for segment in task.request.segments for prompt in segment.prompts]
    if not all(isinstance(prompt, MaskPrompt) or prompt_positions(prompt) for prompt in prompts):
        return None
    geometry, seen = task.whole.geometry, task.box or task.whole.geometry.box
    inner = around_prompts(prompts, _LEAST_MARGIN_MM, geometry).intersection(seen)
    return largest_box_around(inner, voxels, seen)


def tiles_of(task: Task, voxels: int) -> list[tuple[Box, Box]]:
    """Parts of a task's image that a model may see one after the other, each with no more than a number of voxels.

    Halved along the longest axis, again and again. Each comes with where its answer counts; what it sees reaches
    beyond that, so that nothing is cut off from its surroundings. None where the model or the prompts do not allow it,
    or the parts would be smaller than their surroundings.
    """
    prompts = [prompt for segment in task.request.segments for prompt in segment.prompts]
    if not task.card.can_be_tiled or not all(isinstance(prompt, TextPrompt | ClassPrompt) for prompt in prompts):
        return []
    whole, found, waiting = task.box or task.whole.geometry.box, [], [task.box or task.whole.geometry.box]
    while waiting:
        own = waiting.pop()
        seen = _reaching(own, whole)
        if np.prod(seen.shape_kji, dtype=np.int64) <= voxels:
            found.append((seen, own))
            continue
        axis = int(np.argmax(own.shape_kji))
        if own.shape_kji[axis] < 2 * _OVERLAP:
            return []
        start, stop = list(own.start_kji), list(own.stop_kji)
        start[axis] = stop[axis] = (own.start_kji[axis] + own.stop_kji[axis]) // 2
        waiting += [Box((start[0], start[1], start[2]), own.stop_kji), Box(own.start_kji, (stop[0], stop[1], stop[2]))]
    return found


def _reaching(own: Box, whole: Box) -> Box:
    low, high = np.subtract(own.start_kji, _OVERLAP).tolist(), np.add(own.stop_kji, _OVERLAP).tolist()
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).intersection(whole)


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
