"""Precision of a model of slices: 16 bits where the device is made for them and the masks agree.

The encoder takes nearly all of the time, so that it alone computes in 16 bits; its embeddings are kept in 32, and the
decoder computes as ever. A made-up image shows, once for each loaded model, if that changes a mask.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..models.protocols import BoxXyxy, Check, SliceModel, SlicePrompt, unstoppable

Precision = Literal["float32", "bfloat16", "float16"]

# Two masks agree where their Dice is at least this: a border pixel here and there may change, an object may not.
LEAST_AGREEMENT = 0.99
_SIDE = 256


def best_precision(device: str) -> Precision:
    """Return the shortest numbers that a device is made for; 32 bits everywhere but on CUDA.

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
        """Encode a slice in the short precision; the embedding comes back in float32."""
        import torch

        with torch.autocast(self._model.device, dtype=getattr(torch, self.precision)):
            embedding = self._model.encode(image, check)
        with torch.inference_mode():
            return _in_float32(embedding)


def _in_float32(embedding: Any) -> Any:
    """Return the embedding with all its 16-bit tensors in float32, those in tuples, too."""
    import torch

    def widened(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(widened(part) for part in value)
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    if not is_dataclass(embedding):
        return widened(embedding)
    return replace(embedding, **{field.name: widened(getattr(embedding, field.name)) for field in fields(embedding)})


def choose_precision(model: Any, precision: Precision) -> tuple[Any, tuple[str, ...]]:
    """Return the model computing in a precision where that keeps its masks, otherwise as it is, with a note on that.

    ``model`` is a :class:`~..models.protocols.SliceModel`.
    """
    if precision == model.precision:
        return model, ()
    lean = LeanModel(model, precision)
    dice = agreement_of(model, lean)
    if dice >= LEAST_AGREEMENT:
        return lean, ()
    why = f"in {precision} its masks would differ (Dice {dice:.3f})"
    return model, (f"the model computes in {model.precision}: {why}",)


def agreement_of(first: Any, second: Any) -> float:
    """Return the Dice of the masks of two models on a made-up organ; 0 where either finds nothing."""
    image, box = example_slice()
    answers = [model.decode(model.encode(image), SlicePrompt(box)) for model in (first, second)]
    if not all(answer.mask.any() and np.isfinite(answer.score) for answer in answers):
        return 0.0
    masks = [answer.mask for answer in answers]
    return 2 * int(np.count_nonzero(masks[0] & masks[1])) / int(masks[0].sum() + masks[1].sum())


def example_slice() -> tuple[NDArray[np.uint8], BoxXyxy]:
    """Return a bright ellipse in a body that gets darker to one side, with noise, and the box around it."""
    y, x = np.indices((_SIDE, _SIDE))
    body = ((x - 128) / 115) ** 2 + ((y - 128) / 95) ** 2 < 1
    organ = ((x - 150) / 35) ** 2 + ((y - 110) / 25) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 8, (_SIDE, _SIDE))
    image = np.where(organ, 190, np.where(body, 70 + x / 8, 5)) + noise
    return np.clip(image, 0, 255).astype(np.uint8), (113.0, 83.0, 187.0, 137.0)
