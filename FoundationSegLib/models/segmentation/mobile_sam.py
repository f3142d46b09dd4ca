"""MobileSAM: SAM with a TinyViT encoder, for computers without a graphics card; points, boxes and masks on slices.

The network is LiteMedSAM's at 1024 pixels with patches of 4 x 4, from timm's TinyViT and transformers' SAM. The
preparation, prompts and masks are SAM's, as in mobile_sam/predictor.py of ChaoningZhang/MobileSAM (commit 34bbbfd).
Zhang C et al., Faster Segment Anything, arXiv:2306.14289.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamModel

from ...catalog.model_cards import ModelCard
from ..cpu_kernels.tiny_vit import StripEncoder, fast_path_available
from ..preprocessing import IMAGENET, to_device
from ..protocols import Check
from ..weights import checked, load_strictly, only_file, read_pickle, weight_bytes
from .lite_medsam import TinyVitEncoder, build_decoder, fold_batch_norms, split_checkpoint, unfuse_attention
from .sam import Sam, SamDecoder, SamNetwork

SIZE = 1024  # side of the image that MobileSAM was trained with, in pixels
_UNUSED = ("head.", "norm_head.")  # left in the checkpoint from TinyViT's training to classify


class MobileSamNetwork(SamNetwork):
    """TinyViT and, as ``decode``, SAM's decoder. Call it in inference mode."""

    def __init__(self, encoder: TinyVitEncoder, decoder: SamModel, size: int, device: str) -> None:
        self.model, self.device, self.size, self.mask_size = decoder, device, size, size // 4
        if device == "cpu":
            unfuse_attention(encoder)
        self._encoder = encoder.to(device, memory_format=torch.channels_last)
        self._strips = StripEncoder(encoder, size) if fast_path_available(device) else None
        self.decode = SamDecoder(decoder.to(device), device)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self._encoder, self.model)

    @property
    def encoder(self) -> TinyVitEncoder:
        """The image encoder."""
        return self._encoder

    def with_encoder(self, encoder: TinyVitEncoder) -> "MobileSamNetwork":
        """The same decoder with another image encoder."""
        return MobileSamNetwork(encoder, self.model, self.size, self.device)

    def encode(self, pixels: Tensor, check: Check) -> Tensor:
        """Encode (1, 3, size, size) float32; ``check`` is called many times on the way."""
        if self._strips:
            return self.decode.laid_out(self._strips.colour(pixels[0].permute(1, 2, 0).contiguous(), check))
        with checked((block for stage in self._encoder.stages for block in stage.blocks), check):
            return self.decode.laid_out(self._encoder(to_device(pixels, self.device, torch.channels_last)))


def load(card: ModelCard, files: Mapping[str, Path], device: str, size: int = SIZE) -> Sam:
    """Load the adapter with its single file; ``size`` is the side of the image, which no weight depends on.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
    """
    encoder_state, decoder_state = split_checkpoint(read_pickle(only_file(card, files), card))
    encoder_state = {name: value for name, value in encoder_state.items() if not name.startswith(_UNUSED)}
    encoder, decoder = TinyVitEncoder(single_pixels=False), build_decoder(size, patch=16)
    load_strictly(encoder, encoder_state, card)
    load_strictly(decoder, decoder_state, card)
    fold_batch_norms(encoder.eval().requires_grad_(False))
    return Sam(MobileSamNetwork(encoder, decoder.eval().requires_grad_(False), size, device), IMAGENET)
