"""Running SAM's network: an image once, prompts as often as wanted, and stopping in the midst of an image."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import SamModel

from .base import Check
from .modules import checked, weight_bytes
from .sam_attention_cpu import AttentionStrip, attend_in_strips
from .sam_decoder_cpu import SamCpuDecoder
from .tiny_vit_strips import has_fused_convolutions


@dataclass(frozen=True, slots=True)
class SamEmbedding:
    """An encoded slice.

    ``features`` is (1, channels, size / 16, size / 16), of LiteMedSAM (1, channels, size / 4, size / 4), float32 on the
    model's device; ``shape`` is that of the slice (rows, columns), ``resized`` what it was resized to before padding.
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
        masks: as large as those that come out, (1, 1, rows, columns), logits.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


class SamDecoder:
    """The prompt encoder and mask decoder of ``model``, which need no image encoder. Call it in inference mode."""

    def __init__(self, model: SamModel, device: str) -> None:
        self._model = model
        # transformers works this out for every prompt, and in a layout that slows what follows: 61 against 50 ms.
        self._positions = model.get_image_wide_positional_embeddings().detach().contiguous()
        fast = device == "cpu" and has_fused_convolutions()
        self._cpu_decoder = SamCpuDecoder(model) if fast else None

    def laid_out(self, features: Tensor) -> Tensor:
        """An encoder's features in a layout for many prompts: transformers' decoder is slower on any but the plain."""
        return features if self._cpu_decoder else features.contiguous()

    def __call__(self, features: Tensor, prompt: PromptTensors, several: bool = False) -> tuple[Tensor, Tensor]:
        """Logits (masks, rows, columns) and predicted IoUs (masks,): one mask, or the ``several`` guesses."""
        sparse, dense = self._model.prompt_encoder(
            input_points=prompt.points,
            input_labels=prompt.labels,
            input_boxes=prompt.boxes,
            input_masks=prompt.masks,
        )
        if self._cpu_decoder:
            mask = None if prompt.masks is None else dense
            return self._cpu_decoder(features, sparse[0, 0], mask, several)
        masks, scores = self._model.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        return masks[0, 0], scores[0, 0]


class SamNetwork:
    """An image encoder and, as ``decode``, its decoder. Call it in inference mode."""

    def __init__(self, model: SamModel, device: str) -> None:
        self.model, self.device = model, device
        self.size: int = model.config.vision_config.image_size
        # The side of the masks that it gives and takes.
        self.mask_size: int = 4 * model.config.prompt_encoder_config.image_embedding_size
        if device == "cpu":
            attend_in_strips(model.vision_encoder.layers)
        self.decode = SamDecoder(model, device)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.model)

    def encode(self, pixels: Tensor, check: Check) -> Tensor:
        """The features of (1, 3, size, size) float32; ``check`` is called many times in every layer of the encoder."""
        encoder = self.model.vision_encoder
        # Before every linear layer, and before every strip of an attention.
        steps = (module for module in encoder.layers.modules() if isinstance(module, nn.Linear | AttentionStrip))
        with checked(steps, check):
            return self.decode.laid_out(encoder(pixels.to(self.device))[0])
