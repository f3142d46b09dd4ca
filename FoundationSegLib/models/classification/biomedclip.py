"""BiomedCLIP: a ViT of timm and a BERT of transformers under the names that open_clip gives their weights, in float32.

open_clip itself is not needed, and nothing is looked up on the Hub, as its loader would for the text tower's
configuration: that is the checkpoint's config.json. Preparation, tokens and vectors are open_clip's for square
pictures; of others the whole is seen, where it would crop the middle.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..preprocessing import Normalisation
from ..protocols import Check, TextVectors, unstoppable
from ..weights import checked, read_json, read_section, required_file, unusable, weight_bytes
from .two_towers import (
    CLIP_MEAN,
    CLIP_STD,
    Preparation,
    TextReader,
    build_network,
    grid,
    read_tokenizer,
    read_weights,
    unit,
)

_TRUNK = "vit_base_patch16_224"
# What open_clip_config.json has to say of the towers, beside their sizes: what is built here.
_VISION = {"timm_model_name": _TRUNK, "timm_pool": "", "timm_proj": "linear"}
_TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}


class _Vision(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.trunk = timm.create_model(_TRUNK, pretrained=False, num_classes=0, img_size=size)
        self.head = nn.ModuleDict({"proj": nn.Linear(self.trunk.num_features, width, bias=False)})


class _Text(nn.Module):
    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.transformer = BertModel(config, add_pooling_layer=False)
        middle = (config.hidden_size + width) // 2
        self.proj = nn.Sequential(
            nn.Linear(config.hidden_size, middle, bias=False), nn.GELU(), nn.Linear(middle, width, bias=False)
        )


class Network(nn.Module):
    """Both towers; ``width`` is that of the vectors, ``size`` the side of the pictures in pixels."""

    def __init__(self, config: BertConfig, width: int, size: int) -> None:
        super().__init__()
        self.visual, self.text = _Vision(width, size), _Text(config, width)
        self.logit_scale = nn.Parameter(torch.zeros(()))


class BiomedClip:
    """The adapter."""

    precision = "float32"

    def __init__(self, network: Network, preparation: Preparation, reader: TextReader, device: str) -> None:
        self.network, self.device = network, device
        self.head = Head(float(network.logit_scale.exp()))
        self._preparation, self._reader = preparation, reader

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.network)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_images`."""
        return unit(self.network.visual.head["proj"](self._seen(images, check)[:, 0]))

    @torch.inference_mode()
    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """See :meth:`~.classifier_base.ImageTextModel.encode_parts`: each patch through the way of the class token."""
        return unit(grid(self.network.visual.head["proj"](self._seen(images, check)[:, 1:])))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """See :meth:`~.classifier_base.ImageTextModel.encode_texts`."""
        return self._reader.encode([_clean(text) for text in texts], self._read, check)

    def _seen(self, images: Sequence[NDArray[np.uint8]], check: Check) -> Tensor:
        pixels = self._preparation(images, self.device)
        with checked(self.network.visual.trunk.blocks, check):
            return self.network.visual.trunk.forward_features(pixels)

    def _read(self, tokens: Any) -> Tensor:
        ids = tokens["input_ids"].to(self.device)
        pad = self.network.text.transformer.config.pad_token_id
        read = self.network.text.transformer(input_ids=ids, attention_mask=(ids != pad).long())
        return self.network.text.proj(read.last_hidden_state[:, 0])


def _clean(text: str) -> str:
    """As open_clip cleans texts, but for its repair of wrongly decoded ones."""
    return " ".join(html.unescape(html.unescape(text)).split())


def _read_sizes(path: Path, card: ModelCard) -> tuple[int, int, int, Normalisation]:
    """From open_clip_config.json: the width of the vectors, the side of pictures, the length of texts, the colours.

    Raises:
        CheckpointError: the file is unreadable, or describes other towers.
    """
    document = read_json(path, card)
    model, prepared = document.get("model_cfg"), document.get("preprocess_cfg", {})
    parts = [model.get(name) for name in ("vision_cfg", "text_cfg")] if isinstance(model, dict) else []
    if not (parts and all(isinstance(part, dict) for part in (*parts, prepared))):
        raise unusable(path.name, card)
    vision, text = parts
    width, size, length = model.get("embed_dim"), vision.get("image_size", 224), text.get("context_length", 77)
    known = all(vision.get(key) == value for key, value in _VISION.items())
    known &= all(text.get(key) == value for key, value in _TEXT.items())
    mean, std = prepared.get("mean", CLIP_MEAN), prepared.get("std", CLIP_STD)
    colours = [*mean, *std] if isinstance(mean, list | tuple) and isinstance(std, list | tuple) else []
    if not (known and all(type(n) is int and n > 0 for n in (width, size, length))):
        raise unusable(path.name, card)
    if len(colours) != 6 or not all(type(n) in (int, float) for n in colours) or min(std) <= 0:
        raise unusable(path.name, card)
    return width, size, length, Normalisation(tuple(mean), tuple(std))


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> BiomedClip:
    """The adapter with the weights of its files.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold BiomedCLIP's towers.
    """
    path = required_file("open_clip_config.json", files, card)
    width, size, length, colours = _read_sizes(path, card)
    text_path = required_file("config.json", files, card)
    config: Any = read_section(BertConfig, read_json(text_path, card), text_path, card)
    if length > config.max_position_embeddings:
        raise unusable(path.name, card)
    network: Any = build_network(
        lambda: Network(config, width, size), read_weights(card, files), card, device, text_path.name
    )
    reader = TextReader(read_tokenizer(card, files), length, is_padded=False)
    return BiomedClip(network, Preparation(size, colours, by_pillow=True), reader, device)
