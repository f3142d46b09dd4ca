"""LiteMedSAM: a TinyViT encoder and SAM's decoder, distilled from MedSAM; boxes on slices.

The network is put together from timm's TinyViT and transformers' SAM; preparation and the box for the next slice
follow CVPR24_LiteMedSAM_infer.py of bowang-lab/MedSAM, branch LiteMedSAM, but for slices below 256 pixels, which are
enlarged smoothly (:func:`~..preprocessing.resize_weights`). MobileSAM shares the network's parts.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import LayerNorm2d
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from ...catalog.model_cards import ModelCard
from ..cpu_kernels.tiny_vit import StripEncoder, fast_path_available
from ..preprocessing import longest_side_shape, resize_longest_side, to_device
from ..protocols import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable
from ..weights import DECODER_RULES, load_strictly, only_file, read_pickle, renamed, share_table, weight_bytes
from .sam import (
    SamDecoder,
    SamEmbedding,
    as_score,
    box_around,
    on_host,
    point_tensors,
    require_position,
    scaled_box,
    unpadded,
)

SIZE = 256  # side of the image and of the masks that the network works on, in pixels
NEXT_BOX_MARGIN = 3  # by how much the next slice's box exceeds this slice's mask, in pixels of the resized image
_ENCODER_RULES = (
    (r"patch_embed\.seq\.0", "patch_embed.conv1"),
    (r"patch_embed\.seq\.2", "patch_embed.conv2"),
    (r"layers\.0\.downsample", "stages.1.downsample"),
    (r"layers\.1\.downsample", "stages.2.downsample"),
    (r"layers\.2\.downsample", "stages.3.downsample"),
    (r"layers\.(\d)\.blocks", r"stages.\1.blocks"),
    (r"\.c\.weight", ".conv.weight"),
)


class TinyVitEncoder(nn.Module):
    """TinyViT-5M with SAM's neck: (B, 3, S, S) to (B, 256, S / 16, S / 16), or S / 4 with single pixels as patches."""

    def __init__(self, single_pixels: bool = True) -> None:
        super().__init__()
        body = TinyVit(
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            num_classes=0,
            drop_path_rate=0.0,
        )
        if single_pixels:  # as in LiteMedSAM; in MobileSAM they are 4 x 4, as in TinyViT
            body.patch_embed.conv1.conv = nn.Conv2d(3, 32, 1, bias=False)
            body.patch_embed.conv2.conv = nn.Conv2d(32, 64, 1, bias=False)
        # In both the last merge keeps the resolution.
        body.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.patch_embed = body.patch_embed
        self.stages = body.stages
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256, eps=1e-6),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256, eps=1e-6),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch of images."""
        return self.neck(self.stages(self.patch_embed(x)))


def build_decoder(size: int = SIZE, patch: int = 4) -> SamModel:
    """Build SAM's prompt encoder and mask decoder for images of ``size`` pixels, without an image encoder."""
    config = SamConfig(
        vision_config=SamVisionConfig(image_size=size, patch_size=patch, num_hidden_layers=1, global_attn_indexes=[0]),
        prompt_encoder_config=SamPromptEncoderConfig(image_size=size, patch_size=patch),
        # As in the original SAM; transformers' own 1e-6 moves the logits by 0.02, and with them a pixel here and there.
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-5),
    )
    model = SamModel(config)
    model.vision_encoder = nn.Identity()
    return model


def fold_batch_norms(module: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it: the same numbers with less work."""
    for name, child in module.named_children():
        if hasattr(child, "fuse") and hasattr(child, "bn"):
            setattr(module, name, child.fuse())
        else:
            fold_batch_norms(child)


def unfuse_attention(module: nn.Module) -> None:
    """On the CPU, torch's fused attention with a bias is slower than its plain form: 0.84 against 0.70 s a slice."""
    for child in module.modules():
        if hasattr(child, "fused_attn"):
            child.fused_attn = False


class LiteMedSam:
    """The adapter. Boxes only, until it is adapted to points; one mask and one predicted IoU per prompt."""

    precision = "float32"

    def __init__(self, encoder: TinyVitEncoder, decoder: SamModel, device: str) -> None:
        self.device = device
        if device == "cpu":
            unfuse_attention(encoder)
        self.encoder = encoder.eval().to(device, memory_format=torch.channels_last)
        self.decoder = decoder.eval().to(device)
        self._strips = StripEncoder(encoder, SIZE) if fast_path_available(device) else None
        self._decode = SamDecoder(decoder, device)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.encoder, self.decoder)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> SamEmbedding:
        """Encode a slice, (rows, columns) or (rows, columns, 3), uint8; can be stopped on the CPU only."""
        features = self._decode.laid_out(self._features(image, check))
        return SamEmbedding(features, image.shape[:2], longest_side_shape(image.shape[:2], SIZE))

    def _features(self, image: NDArray[np.uint8], check: Check) -> Tensor:
        if self._strips and image.ndim == 2:
            levels, pixels = map(torch.from_numpy, prepare_grey(image))
            return self._strips.grey(levels, pixels, check)
        pixels = torch.from_numpy(prepare(image))
        if self._strips:
            return self._strips.colour(pixels[0].permute(1, 2, 0).contiguous(), check)
        return self.encoder(to_device(pixels, self.device, torch.channels_last))

    @torch.inference_mode()
    def decode(self, embedding: SamEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """Segment the object in the prompt's box, or, with weights that were adapted to them, at its points.

        Raises:
            PromptError: the prompt has neither.
        """
        coarse = previous.logits if previous is not None and prompt.points else None
        logits, scores = self.guess(embedding, prompt, coarse)
        # The official script's sigmoid above 0.5 is a logit above 0.
        mask, (score,) = on_host(self.on_slice(logits[None], embedding) > 0, scores[:1])
        return SliceAnswer(mask, as_score(score), logits[None].clone() if prompt.points else None)

    def with_encoder(self, encoder: TinyVitEncoder) -> "LiteMedSam":
        """The same model with another image encoder."""
        return LiteMedSam(encoder, self.decoder, self.device)

    def embed(self, image: NDArray[np.uint8], encoder: TinyVitEncoder) -> SamEmbedding:
        """Encode a slice by another encoder; gradients pass."""
        pixels = torch.from_numpy(prepare(image)).to(self.device, memory_format=torch.channels_last)
        return SamEmbedding(encoder(pixels), image.shape[:2], longest_side_shape(image.shape[:2], SIZE))

    def with_decoder(self, decoder: SamModel) -> "LiteMedSam":
        """The same model with another prompt encoder and mask decoder."""
        model = copy.copy(self)
        model.decoder, model._decode = decoder, SamDecoder(decoder, self.device)
        return model

    def guess(
        self, embedding: SamEmbedding, prompt: SlicePrompt, logits: Tensor | None, decoder: SamModel | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the mask, (1, 256, 256), and its predicted IoU; gradients pass where a ``decoder`` is named."""
        require_position(prompt, prompt.box)
        scale = SIZE / max(embedding.shape)
        points = point_tensors(prompt.points, (scale, scale), self.device) if prompt.points else (None, None)
        corners = [[box_to_network(prompt.box, embedding.shape)]] if prompt.box else None
        boxes = None if corners is None else torch.tensor(corners, dtype=torch.float32, device=self.device)
        if decoder is not None:
            return self._decode.by_modules(decoder, embedding.features, points, boxes, logits, False)
        return self._decode(embedding.features, points, boxes, logits)

    def on_slice(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """Bring logits of the network, (1, 1, 256, 256), to the slice; (rows, columns)."""
        return unpadded(logits, SIZE, embedding.resized, embedding.shape)

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """Box for the next slice: around this mask once resized, wider by three of the network's pixels or more."""
        margin = NEXT_BOX_MARGIN + wider
        box = box_around(resize_longest_side(mask.astype(np.uint8), SIZE), (margin, margin), (SIZE, SIZE))
        return box and scaled_box(box, (max(mask.shape) / SIZE,) * 2)


def prepare(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Prepare a slice for the encoder: (1, 3, 256, 256) float32, 0..1.

    Longest side to 256 in 8 bits, darkest to 0 and brightest to 1, zeros at the bottom and right.
    """
    small = resize_longest_side(image if image.ndim == 3 else image[:, :, None], SIZE)
    padded = np.zeros((1, 3, SIZE, SIZE), np.float32)
    padded[0, :, : small.shape[0], : small.shape[1]] = np.moveaxis(_stretch(small, small), 2, 0)
    return padded


def prepare_grey(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Prepare a grey slice as (256,) float32, the value of each level, and (256, 256), the level of every pixel."""
    small = resize_longest_side(image, SIZE)
    padded = np.full((SIZE, SIZE), small.min(), np.int32)
    padded[: small.shape[0], : small.shape[1]] = small
    return _stretch(np.arange(256), small), padded


def _stretch(levels: NDArray[np.integer], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale levels so that the image's darkest is 0 and its brightest 1."""
    low, high = float(image.min()), float(image.max())
    return (levels.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-8))


def box_to_network(box: BoxXyxy, shape: tuple[int, int]) -> BoxXyxy:
    """Convert a box to the network's pixels: scaled and cut to whole numbers, as the official script does.

    The tiny addend keeps boxes that :meth:`LiteMedSam.box_around` scaled up whole on the way back.
    """
    x0, y0, x1, y1 = (float(int(n * SIZE / max(shape) + 1e-6)) for n in box)
    return x0, y0, x1, y1


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a checkpoint into the weights of the encoder and of the decoder, under the names of the modules here."""
    prefix = "image_encoder."
    encoder = {renamed(k.removeprefix(prefix), _ENCODER_RULES): v for k, v in state.items() if k.startswith(prefix)}
    decoder = {renamed(k, DECODER_RULES): v for k, v in state.items() if not k.startswith(prefix)}
    return encoder, share_table(decoder)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> LiteMedSam:
    """Load the adapter with its single file.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
    """
    encoder_state, decoder_state = split_checkpoint(read_pickle(only_file(card, files), card))
    encoder, decoder = TinyVitEncoder(), build_decoder()
    load_strictly(encoder, encoder_state, card)
    load_strictly(decoder, decoder_state, card)
    fold_batch_norms(encoder.eval())
    return LiteMedSam(encoder, decoder, device)
