"""Doing with the memory that there is: less of the image from the start, or once more where it ran out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..core.cards import ModelCard
from ..core.errors import MemoryShortageError
from ..core.geometry import Box
from ..core.requests import Prediction
from ..core.sizes import bytes_text
from ..core.volume import Volume
from .fitting import Left, fitting_box, forecast_load, remedies, smaller_box
from .memory import free_bytes, free_host_bytes, taken_bytes
from .tasks import Task, make_task

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

    def fitted(self, task: Task, besides: int, crop: Crop) -> Task:
        """The task, limited to what is around its prompts where the image takes more memory than is left.

        Raises:
            MemoryShortageError: that is too much, too.
        """
        if not task.card.bytes_per_voxel:
            return task
        left = self.left("cpu", besides)
        box = fitting_box(task, left, self.catalogue)
        if box is None:
            return task
        why = f", since {bytes_text(left.host or 0)}{left.why} of memory are free, and the whole takes more"
        return make_task(task.card, task.request, task.whole, box, crop, why)

    def answer(
        self, task: Task, crop: Crop, attempt: Callable[[Task], Prediction], let_go: Callable[[], str]
    ) -> Prediction:
        """What an attempt answers; where memory runs out, what a second one does after everything was given back.

        Args:
            task: what to do.
            crop: cuts the image.
            attempt: does it.
            let_go: gives back all memory that can be given back, and says on which device.

        Raises:
            MemoryShortageError: it ran out again; nothing is kept, so that the next request can be answered.
        """
        try:
            return attempt(task)
        except MemoryShortageError as error:
            shortage = str(error)
        let_go()  # not before the error is gone: its traceback holds on to everything that the attempt made
        box = smaller_box(task)
        try:
            less = make_task(task.card, task.request, task.whole, box, crop, ", since memory ran out") if box else task
            prediction = attempt(less)
        except MemoryShortageError as error:
            device = let_go()
            remedy = remedies(task.card, device, self.left(device), self.catalogue)
            again = "after all that was kept had been given back, it ran out again"
            raise MemoryShortageError(f"{shortage}; {again}: {remedy}") from error
        note = f"memory ran out ({shortage}): all that was kept was given back, and the model was asked again"
        return replace(prediction, notes=(*prediction.notes, note))
