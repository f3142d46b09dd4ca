"""Running SAM's network: an image once, prompts as often as wanted, and stopping in the midst of an image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import SamModel

from .base import Check
from .sam_attention_cpu import AttentionStrip, attend_in_strips
from .sam_decoder_cpu import SamCpuDecoder
from .tiny_vit_strips import has_fused_convolutions


@dataclass(frozen=True, slots=True)
class SamEmbedding:
    """An encoded slice.

    ``features`` is (1, channels, size / 16, size / 16) float32 on the model's device; ``shape`` is that of the slice
    (rows, columns), ``resized`` what it was resized to before padding.
    """

    features: Tensor
    shape: tuple[int, int]
    resized: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.features.nbytes


@dataclass(frozen=True, slots=True)
class PromptTensors:
    """A prompt for one object as the network takes it, on its device, float32; points or a box at the least.

    Attributes:
        points: (1, 1, points, 2), x and y in pixels of the network; centres at whole numbers.
        labels: (1, 1, points), 1 for a positive point, 0 for a negative one.
        boxes: (1, 1, 4), x0, y0, x1, y1.
        masks: (1, 1, size / 4, size / 4), logits.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


class SamNetwork:
    """An image encoder with prompt encoder and mask decoder. Call it in inference mode."""

    def __init__(self, model: SamModel, device: str) -> None:
        self.model, self.device = model, device
        self.size: int = model.config.vision_config.image_size
        # The side of the masks that it gives and takes.
        self.mask_size: int = 4 * model.config.prompt_encoder_config.image_embedding_size
        # transformers works this out for every prompt.
        self._positions = model.get_image_wide_positional_embeddings().detach().contiguous()
        if device == "cpu":
            attend_in_strips(model.vision_encoder.layers)
        fast = device == "cpu" and has_fused_convolutions()
        self._cpu_decoder = SamCpuDecoder(model) if fast else None

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return sum(p.nbytes for p in self.model.parameters())

    def encode(self, pixels: Tensor, check: Check) -> Tensor:
        """The features of (1, 3, size, size) float32; ``check`` is called many times in every layer of the encoder."""
        encoder = self.model.vision_encoder
        with _checked(encoder.layers, check):
            features = encoder(pixels.to(self.device))[0]
        # The fast decoder likes the layout that they come in; transformers' own is slower on any but the plain one.
        return features if self._cpu_decoder else features.contiguous()

    def decode(self, features: Tensor, prompt: PromptTensors, several: bool = False) -> tuple[Tensor, Tensor]:
        """Logits (masks, size / 4, size / 4) and predicted IoUs (masks,): one mask, or the ``several`` guesses."""
        sparse, dense = self.model.prompt_encoder(
            input_points=prompt.points,
            input_labels=prompt.labels,
            input_boxes=prompt.boxes,
            input_masks=prompt.masks,
        )
        if self._cpu_decoder:
            mask = None if prompt.masks is None else dense
            return self._cpu_decoder.decode(features, sparse[0, 0], mask, several)
        masks, scores = self.model.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        return masks[0, 0], scores[0, 0]


@contextmanager
def _checked(layers: nn.ModuleList, check: Check) -> Iterator[None]:
    """Call ``check`` before every linear layer, and before every strip of an attention."""

    def before(*_: object) -> None:
        check()

    steps = [module for module in layers.modules() if isinstance(module, nn.Linear | AttentionStrip)]
    hooks = [step.register_forward_pre_hook(before) for step in steps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
