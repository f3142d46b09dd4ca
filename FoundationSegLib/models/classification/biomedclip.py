"""BiomedCLIP: a ViT of timm and a BERT of transformers under the names that open_clip gives their weights.

open_clip itself is not needed, and nothing is looked up on the Hub, as its loader would for the text tower's
configuration: that is the checkpoint's config.json. Preparation, tokens and vectors are open_clip's for square
pictures.
"""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from ..preprocessing import Normalisation, parse_normalisation
from ..weights import read_json, read_section, required_file, unusable
from . import two_towers

TRUNK = "vit_base_patch16_224"  # of timm
# Required values of open_clip_config.json, beside the sizes and the trunk: the towers that are built here.
_VISION = {"timm_pool": "", "timm_proj": "linear"}
_TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}


class _Vision(nn.Module):
    def __init__(self, width: int, size: int, trunk: str) -> None:
        super().__init__()
        self.trunk = timm.create_model(trunk, pretrained=False, num_classes=0, img_size=size)
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

    def __init__(self, config: BertConfig, width: int, size: int, trunk: str = TRUNK) -> None:
        super().__init__()
        self.visual, self.text = _Vision(width, size, trunk), _Text(config, width)
        self.logit_scale = nn.Parameter(torch.zeros(()))


def clean(text: str) -> str:
    """Clean a text as open_clip does, but for its repair of wrongly decoded ones."""
    return " ".join(html.unescape(html.unescape(text)).split())


def _read_sizes(path: Path, card: ModelCard, trunk: str) -> tuple[int, int, int, Normalisation]:
    """Read from open_clip_config.json the width of the vectors, the side of pictures, the length of texts, the colours.

    Raises:
        CheckpointError: the file is unreadable, or describes other towers.
    """
    document = read_json(path, card)
    model, preparation = document.get("model_cfg"), document.get("preprocess_cfg", {})
    parts = [model.get(name) for name in ("vision_cfg", "text_cfg")] if isinstance(model, dict) else []
    if not (parts and all(isinstance(part, dict) for part in (*parts, preparation))):
        raise unusable(path.name, card)
    vision, text = parts
    width, size, length = model.get("embed_dim"), vision.get("image_size", 224), text.get("context_length", 77)
    fits = all(vision.get(key) == value for key, value in {"timm_model_name": trunk, **_VISION}.items())
    fits &= all(text.get(key) == value for key, value in _TEXT.items())
    renamed = {f"image_{key}": preparation[key] for key in ("mean", "std") if key in preparation}
    colours = parse_normalisation(renamed, two_towers.CLIP_COLOURS)
    if colours is None or not (fits and all(type(n) is int and n > 0 for n in (width, size, length))):
        raise unusable(path.name, card)
    return width, size, length, colours


def load(card: ModelCard, files: Mapping[str, Path], device: str, trunk: str = TRUNK) -> two_towers.TwoTowers:
    """Load the adapter with its files; ``trunk`` is timm's name of the network that sees the pictures.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold BiomedCLIP's towers.
    """
    path = required_file("open_clip_config.json", files, card)
    width, size, length, colours = _read_sizes(path, card, trunk)
    text_path = required_file("config.json", files, card)
    config = read_section(BertConfig, read_json(text_path, card), text_path, card)
    if length > config.max_position_embeddings:
        raise unusable(path.name, card)
    network = two_towers.build_network(
        lambda: Network(config, width, size, trunk), two_towers.read_weights(card, files), card, device, text_path.name
    )
    reader = two_towers.TextReader(two_towers.read_tokenizer(card, files), length, is_padded=False)
    trunk, project, bert = network.visual.trunk, network.visual.head["proj"], network.text.transformer

    def images(pixels: Tensor) -> Tensor:
        return project(trunk.forward_features(pixels)[:, 0])

    def parts(pixels: Tensor) -> Tensor:
        """Project each patch as the class token."""
        return project(trunk.forward_features(pixels)[:, 1:])

    def texts(tokens: Any) -> Tensor:
        ids = tokens["input_ids"].to(device)
        output = bert(input_ids=ids, attention_mask=(ids != bert.config.pad_token_id).long())
        return network.text.proj(output.last_hidden_state[:, 0])

    preparation, head = (
        two_towers.PicturePreparation(size, colours, by_pillow=True),
        Head(float(network.logit_scale.exp())),
    )
    return two_towers.TwoTowers(network, device, head, preparation, reader, trunk.blocks, images, parts, texts, clean)
