"""Doing with the memory that there is: less of the image from the start, or once more where it ran out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..catalog.model_cards import ModelCard
from ..errors import MemoryShortageError
from ..imaging.geometry import Box
from ..imaging.volume import Volume
from ..progress import bytes_text
from ..requests.segmentation import Prediction
from .fitting import (
    Left,
    allowed_voxels,
    forecast_load,
    part_around,
    remedies,
    smaller_voxels,
    tiles_of,
    too_large,
)
from .memory import free_bytes, free_host_bytes, taken_bytes
from .tasks import Task, joined, make_task, make_tiles

Crop = Callable[[Volume, Box], Volume]


@dataclass(frozen=True, slots=True)
class Thrift:
    """What may be taken, and what to do where it is not enough.

    Attributes:
        catalogue: the models that could be used instead.
        limit: what the worker may take in all, in bytes, on the host and on the device each; None: what there is.
    """

    catalogue: Mapping[str, ModelCard]
    limit: int | None = None

    def left(self, device: str, besides: int = 0) -> Left:
        """Memory that is left; ``besides``: what will be given back before any is taken, in bytes."""
        host, there = free_host_bytes(), free_bytes(device)
        if self.limit is not None:
            most = max(0, self.limit - taken_bytes())
            host = most if host is None else min(host, most)
            there = self.limit if there is None else min(there, self.limit)
        return Left(None if host is None else host + besides, there, self.limit)

    def forecast_load(self, card: ModelCard, device: str) -> tuple[str, ...]:
        """See :func:`.fitting.forecast_load`."""
        return forecast_load(card, device, self.left(device), self.catalogue)

    def answer(
        self,
        task: Task,
        besides: int | None,
        crop: Crop,
        attempt: Callable[[Task], Prediction],
        let_go: Callable[[], str],
    ) -> Prediction:
        """What an attempt answers: about all of the image, or as much as there is memory for.

        Where memory runs out anyway, what a second attempt about less answers, after everything was given back.

        Args:
            task: what to do.
            besides: what will be given back before anything is taken, in bytes; None where nothing more will be taken.
            crop: cuts the image.
            attempt: does it.
            let_go: gives back all memory that can be given back, and says on which device.

        Raises:
            MemoryShortageError: there is too little from the start, or it ran out twice; nothing is kept then, so that
                the next request can be answered.
        """
        tasks = [task] if besides is None else self._fitted(task, besides, crop)
        try:
            return joined([attempt(one) for one in tasks])
        except MemoryShortageError as error:
            shortage = str(error)
        let_go()  # not before the error is gone: its traceback holds on to everything that the attempt made
        voxels = smaller_voxels(tasks[0]) if task.card.sees_volumes else 0
        try:
            prediction = joined([attempt(one) for one in _less(task, voxels, crop, ", since memory ran out") or tasks])
        except MemoryShortageError as error:
            device = let_go()
            remedy = remedies(task.card, device, self.left(device), self.catalogue)
            again = "after all that was kept had been given back, it ran out again"
            raise MemoryShortageError(f"{shortage}; {again}: {remedy}") from error
        note = f"memory ran out ({shortage}): all that was kept was given back, and the model was asked again"
        return replace(prediction, notes=(*prediction.notes, note))

    def _fitted(self, task: Task, besides: int, crop: Crop) -> list[Task]:
        """The task; where the image takes more memory than is left, as much of it as fits, or all of it in parts."""
        left = self.left("cpu", besides) if task.card.bytes_per_voxel else None
        voxels = allowed_voxels(task, left) if left is not None else None
        if left is None or voxels is None:
            return [task]
        why = f", since {bytes_text(left.host or 0)}{left.why} of memory are free, and the whole takes more"
        less = _less(task, voxels, crop, why)
        if not less:
            raise too_large(task, left, self.catalogue)
        return less


def _less(task: Task, voxels: int, crop: Crop, why: str) -> list[Task]:
    """The task about what is around its prompts, or in parts where they are words; none where neither goes."""
    box = part_around(task, voxels)
    if box is not None:
        return [make_task(task.card, task.request, task.whole, box, crop, why)]
    return make_tiles(task, tiles_of(task, voxels), crop, why)
