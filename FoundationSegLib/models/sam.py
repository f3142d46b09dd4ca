"""SAM (ViT-B, ViT-L, ViT-H) and SlimSAM: points, boxes and masks on slices, and refining the last answer.

The network is transformers' SamModel. Preparation, coordinates and masks are those of its SamProcessor, in float32
throughout; which of its masks is given follows the original SAM (segment_anything/predictor.py and the README: three
masks for a single point, which may mean a part or the whole, and one for every other prompt).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..core.cards import ModelCard
from ..core.errors import PromptError
from .base import BoxXyxy, Check, SliceAnswer, SlicePrompt, unstoppable
from .checkpoint_files import file_called
from .normalisation import Normalisation, read_normalisation
from .resize import longest_side_shape
from .sam_checkpoint import load_sam
from .sam_network import PromptTensors, SamEmbedding, SamNetwork
from .sam_prompts import (
    as_score,
    box_around,
    box_for_neighbour,
    box_tensor,
    mask_tensor,
    point_tensors,
    scale_to,
    unpadded,
)


def prepare(image: NDArray[np.uint8], size: int, normalisation: Normalisation) -> Tensor:
    """What the encoder sees of a slice: (1, 3, size, size) float32.

    Longest side to ``size`` in 8 bits, then each channel's mean and standard deviation, then zeros at the bottom and
    right. A grey slice (rows, columns) is resized once, and then repeated.
    """
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    rows, columns = longest_side_shape(image.shape[:2], size)
    levels = torch.from_numpy(np.ascontiguousarray(channels))[None]
    # On 8 bits torch computes in whole numbers, as SamImageProcessor does: in floats a fifth of all pixels differ by 1.
    levels = functional.interpolate(levels, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
    padded = torch.zeros(1, 3, size, size)
    padded[..., :rows, :columns] = normalisation(levels)
    return padded


class Sam:
    """The adapter."""

    precision = "float32"

    def __init__(self, network: SamNetwork, normalisation: Normalisation) -> None:
        self.network, self.device = network, network.device
        self._normalisation = normalisation

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return self.network.nbytes

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> SamEmbedding:
        """The embedding of a slice, (rows, columns) or (rows, columns, 3), uint8."""
        size = self.network.size
        features = self.network.encode(prepare(image, size, self._normalisation), check)
        return SamEmbedding(features, image.shape[:2], longest_side_shape(image.shape[:2], size))

    @torch.inference_mode()
    def decode(self, embedding: SamEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """The mask that the prompt means; of the three for a single point, the one that the network trusts most.

        ``previous`` goes in as its logits, and then a mask of the prompt does not.

        Raises:
            PromptError: nothing says where the object is.
        """
        known = None if previous is None else previous.logits
        tensors = self._tensors(prompt, embedding, known)
        logits, scores = self.network.decode(embedding.features, tensors, is_ambiguous(prompt, known))
        best = int(scores.argmax())
        # A copy: the others need not be kept with it.
        chosen = logits[None, best : best + 1].clone()
        mask = unpadded(chosen, self.network.size, embedding.resized, embedding.shape) > 0
        return SliceAnswer(mask.cpu().numpy(), as_score(scores[best]), chosen)

    def _tensors(self, prompt: SlicePrompt, embedding: SamEmbedding, known: Tensor | None) -> PromptTensors:
        scale = scale_to(embedding.resized, embedding.shape)
        points, labels = point_tensors(prompt.points, scale, self.device) if prompt.points else (None, None)
        box = prompt.box or self._box_of_mask(prompt, known)
        if not (box or prompt.points):
            raise PromptError("the prompt says nothing of where the object is")
        boxes = box_tensor(box, scale, self.device) if box else None
        if known is None and prompt.mask:
            known = mask_tensor(prompt.mask, self.network.mask_size, self.device)
        return PromptTensors(points, labels, boxes, known)

    @staticmethod
    def _box_of_mask(prompt: SlicePrompt, known: Tensor | None) -> BoxXyxy | None:
        """A mask goes in with the box around it, as in micro-sam's segment_from_mask; not while it is refined.

        Points that refine an answer may lie outside what the mask was at first.
        """
        if prompt.mask is None or (known is not None and prompt.points):
            return None
        mask = prompt.mask.unpack()
        return box_around(mask, (0, 0), mask.shape[::-1])

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """The box for the next slice: around this mask, and 12 of the network's 1024 pixels wider, or more."""
        size = self.network.size
        return box_for_neighbour(mask, scale_to(longest_side_shape(mask.shape, size), mask.shape), size, wider)


def is_ambiguous(prompt: SlicePrompt, known: Tensor | None) -> bool:
    """Whether the prompt may mean several objects: a single positive point, and nothing else."""
    alone = prompt.box is None and prompt.mask is None and known is None
    return alone and len(prompt.points) == 1 and prompt.points[0].positive


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam:
    """The adapter with the weights of its files: config.json, model.safetensors, maybe preprocessor_config.json.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SAM's network.
    """
    network = SamNetwork(load_sam(card, files, device), device)
    path, side = file_called("preprocessor_config.json", files), network.size
    shape = {"size": {"longest_edge": side}, "do_pad": True, "pad_size": {"height": side, "width": side}}
    return Sam(network, read_normalisation(path, card, shape))
