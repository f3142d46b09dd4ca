"""With which numbers a model of slices computes: shorter ones where the device is made for them and the masks agree.

The encoder takes nearly all of the time, so that it alone computes in 16 bits; what it says is kept in 32, and the
decoder computes as ever. Whether that changes a mask is found out once for each loaded model, on a made-up image.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..models.protocols import BoxXyxy, Check, SliceAnswer, SliceModel, SlicePrompt, unstoppable

Precision = Literal["float32", "bfloat16", "float16"]

# Two masks agree where their Dice is at least this: a border pixel here and there may change, an object may not.
LEAST_AGREEMENT = 0.99
_SIDE = 256


def best_precision(device: str) -> Precision:
    """The shortest numbers that a device is made for; 32 bits everywhere but on CUDA.

    bfloat16 has the range of float32, and units for it from compute capability 8.0 on (Ampere); float16 has units from
    7.0 on (Volta). On a CPU and on MPS, 16 bits save little or nothing.
    """
    if device != "cuda":
        return "float32"
    import torch

    if not torch.cuda.is_available():
        return "float32"
    capability = torch.cuda.get_device_capability()
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


class LeanModel:
    """A model whose encoder computes in 16 bits; all else is the model's own."""

    def __init__(self, model: SliceModel, precision: Precision) -> None:
        self._model, self.precision = model, precision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Any:
        """See :meth:`~..models.protocols.SliceModel.encode`; the embedding is in float32."""
        import torch

        with torch.autocast(self._model.device, dtype=getattr(torch, self.precision)):
            embedding = self._model.encode(image, check)
        with torch.inference_mode():
            return _in_float32(embedding)


def _in_float32(embedding: Any) -> Any:
    """The embedding with all its 16-bit tensors in float32, those in tuples, too."""
    import torch

    def widened(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(widened(one) for one in value)
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return replace(embedding, **{field.name: widened(getattr(embedding, field.name)) for field in fields(embedding)})


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model with the numbers that it is to compute with, and a note where that is not what the device is made for."""

    model: Any
    notes: tuple[str, ...] = ()


def choose_precision(model: Any, precision: Precision) -> Chosen:
    """The model computing in a precision, where that leaves its masks as they are; as it is, otherwise.

    ``model`` is a :class:`~..models.protocols.SliceModel`.
    """
    if precision == model.precision:
        return Chosen(model)
    lean = LeanModel(model, precision)
    agreement = agreement_of(model, lean)
    if agreement >= LEAST_AGREEMENT:
        return Chosen(lean)
    why = f"in {precision} its masks would differ (Dice {agreement:.3f})"
    return Chosen(model, (f"the model computes in {model.precision}: {why}",))


def agreement_of(one: Any, other: Any) -> float:
    """The Dice of what two models say of a made-up organ in a made-up slice; 0 where either finds nothing."""
    image, box = _made_up()
    first, second = (model.decode(model.encode(image), SlicePrompt(box)) for model in (one, other))
    if not _is_sound(first) or not _is_sound(second):
        return 0.0
    both = int(np.count_nonzero(first.mask & second.mask))
    return 2 * both / int(first.mask.sum() + second.mask.sum())


def _is_sound(answer: SliceAnswer) -> bool:
    return bool(answer.mask.any()) and np.isfinite(answer.score).item()


def _made_up() -> tuple[NDArray[np.uint8], BoxXyxy]:
    """A bright ellipse in a body that gets darker to one side, with noise, and the box around it."""
    y, x = np.indices((_SIDE, _SIDE))
    body = ((x - 128) / 115) ** 2 + ((y - 128) / 95) ** 2 < 1
    organ = ((x - 150) / 35) ** 2 + ((y - 110) / 25) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 8, (_SIDE, _SIDE))
    image = np.where(organ, 190, np.where(body, 70 + x / 8, 5)) + noise
    return np.clip(image, 0, 255).astype(np.uint8), (113.0, 83.0, 187.0, 137.0)
