"""SAM 2.1: one network for slices and, by its memory, for volumes; points, boxes and masks.

The network is transformers' ``Sam2VideoModel``. A slice by itself is decoded as ``Sam2Model`` does, which is the part
of it that has no memory; a volume is followed as by transformers' own video session (:mod:`.sam2_memory`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Sam2VideoModel

from ..core.cards import ModelCard
from .base import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable
from .checkpoint_files import read_safetensors, required_file
from .modules import checked, weight_bytes
from .original_sam import with_shared_table
from .sam2_checkpoint import build_network, read_config, read_preparation
from .sam2_memory import Sam2Memory
from .sam2_slices import (
    Sam2Embedding,
    box_tensor,
    mask_as_logits,
    mask_of,
    mask_tensor,
    point_tensors,
)
from .sam_prompts import as_score, box_for_neighbour, scale_to

# What turns a slice, uint8, into the network's image, (1, 3, S, S) float32.
Prepare = Callable[[NDArray[np.uint8]], Tensor]


class Sam2:
    """The adapter. See :class:`~.base.MemoryModel` for the two rules."""

    precision = "float32"

    def __init__(
        self,
        network: Sam2VideoModel,
        prepare: Prepare,
        device: str,
        fresh_each_way: bool = False,
        largest_part_only: bool = False,
    ) -> None:
        self.device = device
        self.fresh_each_way = fresh_each_way
        self.largest_part_only = largest_part_only
        self.network = network.eval().requires_grad_(False).to(device)
        self._prepare = prepare
        self._size = network.config.image_size
        self._positions = _coarse_positions(self.network)
        self._grid = network.get_image_wide_positional_embeddings()
        network.vision_encoder.neck.position_encoding = _NoPositions()

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.network)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Sam2Embedding:
        """The embedding of a slice, (rows, columns) or (rows, columns, 3), uint8; can be stopped between blocks."""
        pixels = self._prepare(image).to(self.device)
        with checked(self.network.vision_encoder.backbone.blocks, check):
            output = self.network.get_image_features(pixels)
        # transformers 4 answers with a tuple.
        maps = output[0] if isinstance(output, tuple) else output.fpn_hidden_states
        return Sam2Embedding(tuple(maps), image.shape[:2])

    @torch.inference_mode()
    def decode(self, embedding: Sam2Embedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """The mask that a prompt means on a slice by itself.

        A single point is ambiguous: of the three masks for it, the best by predicted IoU. As SAM 2's own image
        predictor, it takes the object to be where the prompt says; only a memory says that one is absent.
        """
        coarse = None if previous is None else previous.logits
        if coarse is None and prompt.mask is not None:
            stretched = mask_tensor(prompt.mask, self._size)
            coarse = mask_as_logits(stretched, self.network.prompt_encoder.mask_input_size).to(self.device)
        ambiguous = len(prompt.points) == 1 and prompt.box is None and coarse is None
        logits, scores = self._decoded(embedding, self._prompt_tensors(prompt, embedding.shape), coarse, ambiguous)
        best = int(scores[0, 0].argmax())
        chosen = logits[0, :, best : best + 1].clone()
        return SliceAnswer(mask_of(chosen, embedding.shape), as_score(scores[0, 0, best]), chosen)

    def _prompt_tensors(self, prompt: SlicePrompt, shape: tuple[int, int]) -> dict[str, Tensor | None]:
        points = point_tensors(prompt, shape, self._size)
        box = None if prompt.box is None else box_tensor(prompt.box, shape, self._size)
        if points is None and box is None:
            # Sam2Model's padding: a point that is none.
            points = torch.zeros(1, 1, 1, 2), -torch.ones(1, 1, 1, dtype=torch.int32)
        xy, labels = (None, None) if points is None else points
        named = {"input_points": xy, "input_labels": labels, "input_boxes": box}
        return {name: None if value is None else value.to(self.device) for name, value in named.items()}

    def _decoded(
        self, embedding: Sam2Embedding, prompts: dict[str, Tensor | None], coarse: Tensor | None, several: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (1, 1, n, S/4, S/4) and predicted IoUs (1, 1, n): n is 3 where ``several``, otherwise 1."""
        sparse, dense = self.network.prompt_encoder(**prompts, input_masks=coarse)
        maps = [*embedding.maps[:-1], embedding.maps[-1] + self.network.no_memory_embedding]
        sizes = self.network.backbone_feature_sizes
        levels = [level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(maps, sizes, strict=True)]
        return self.network.mask_decoder(
            image_embeddings=levels[-1],
            image_positional_embeddings=self._grid,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=levels[:-1],
        )[:2]

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """The box for the next slice, where no memory is wanted: around this mask, and 12 of 1024 pixels or more."""
        return box_for_neighbour(mask, scale_to((self._size, self._size), mask.shape), self._size, wider)

    def remember(self, slices: int) -> Sam2Memory:
        """A new memory of one object in a volume of that many slices."""
        return Sam2Memory(self.network, self._positions, self.decode, slices)


class _NoPositions(nn.Module):
    """In place of the neck's positional embeddings, which are the same for every slice and 84 MB large."""

    def forward(self, shape: torch.Size, device: Any, dtype: torch.dtype, mask: Tensor | None = None) -> Tensor:
        """(1, 1, 1, 1), so that what looks at it still can."""
        return torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)


@torch.inference_mode()
def _coarse_positions(network: Sam2VideoModel) -> Tensor:
    """The positional embedding of the coarsest level, the only one that is used: (S/16 * S/16, 1, C) float32."""
    shape = torch.Size((1, network.hidden_dim, *network.backbone_feature_sizes[-1]))
    positions = network.vision_encoder.neck.position_encoding(shape, network.device, torch.float32)
    return positions.flatten(2).permute(2, 0, 1)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam2:
    """The adapter with the weights of a checkpoint in transformers' layout.

    Raises:
        CheckpointError: a file is missing, unreadable, does not fit the others, or holds other weights.
    """
    config = read_config(required_file("config.json", files, card), card)
    prepare = read_preparation(files, config.image_size, card)
    state = read_safetensors(required_file("model.safetensors", files, card), card)
    return Sam2(build_network(config, with_shared_table(state), card), prepare, device)
