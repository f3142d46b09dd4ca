"""FLAIR: fundus photographs and sentences, compared by a ResNet-50 and Bio_ClinicalBERT.

Preparation and vectors are those of the package ``flair`` (github jusiro/FLAIR, Apache-2.0) for square pictures, and of
texts that are asked for one by one: the package takes the mean of padding, too, so that a text's vector changes with
those beside it. A picture that is not square has black on both sides here, there to the right or below. Source:
Silva-Rodríguez J, et al. Medical Image Analysis 99:103357 (2025).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.transforms.v2.functional import resize
from transformers import BertConfig, BertModel, BertTokenizer

from ...catalog.model_cards import ModelCard
from ...requests.scoring import Head
from .. import weights
from ..preprocessing import channels_first, to_device
from .two_towers import TextReader, TwoTowers, build_network, make_tokenizer, read_weights, text_sizes

SIZE = 512  # pixels, the side of the square that the network sees
_LONGEST_TEXT = 77  # tokens
_LARGEST_SCALE = 4.6052  # of cosines, as a logarithm


class FlairNetwork(nn.Module):
    """Both towers; the shapes of a checkpoint's tensors say the text tower's sizes.

    Raises:
        KeyError, ValueError: they are another network's.
    """

    def __init__(self, state: Mapping[str, Tensor], make_picture: Callable[[], nn.Module]) -> None:
        super().__init__()
        picture = make_picture()
        picture.fc = nn.Identity()
        projected = state["text_model.projection_head_text.projection.weight"].shape[0]
        self.vision_model = nn.ModuleDict({"model": picture, "projection_head_vision": _projection(2048, projected)})
        bert = BertModel(BertConfig(**text_sizes(state, "text_model.model")))
        text = {"model": bert, "projection_head_text": _projection(bert.config.hidden_size, projected)}
        self.text_model = nn.ModuleDict(text)
        self.logit_scale = nn.Parameter(torch.zeros(()))


def _projection(width: int, projected: int) -> nn.ModuleDict:
    return nn.ModuleDict({"projection": nn.Linear(width, projected, bias=False)})


@dataclass(frozen=True, slots=True)
class Preparation:
    """Brings square pictures to the size of the network, from 0 to 1 and with neither mean nor deviation taken."""

    size: int = SIZE

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
        """(pictures, 3, size, size) float32 on the device."""
        levels = (channels_first(image).float() / 255 for image in images)
        sized = (resize(level, [self.size, self.size], antialias=True) for level in levels)
        return to_device(torch.cat([picture.expand(1, 3, self.size, self.size) for picture in sized]), device)


def load(
    card: ModelCard,
    files: Mapping[str, Path],
    device: str,
    size: int = SIZE,
    make_picture: Callable[[], nn.Module] = resnet50,
) -> TwoTowers:
    """Load the adapter with its files.

    Args:
        card, files, device: see :func:`~.protocols.load_model`.
        size: the side of the square that is seen, in pixels.
        make_picture: makes the tower of pictures, with any weights.

    Raises:
        CheckpointError: a file is missing or damaged, or does not hold FLAIR's network.
    """
    state = read_weights(card, files)
    network = build_network(lambda: FlairNetwork(state, make_picture), state, card, device, "model.safetensors")
    resnet, bert = network.vision_model["model"], network.text_model["model"]
    from_picture = network.vision_model["projection_head_vision"]["projection"]
    from_text = network.text_model["projection_head_text"]["projection"]
    stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)

    def images(pixels: Tensor) -> Tensor:
        return from_picture(resnet(pixels))

    def parts(pixels: Tensor) -> Tensor:
        """Project each part of the last stage; the vector of a picture is that of their mean."""
        features = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(pixels))))
        for stage in stages:
            features = stage(features)
        return from_picture(features.flatten(2).transpose(1, 2))

    def texts(tokens: Any) -> Tensor:
        ids, mask = (tokens[name].to(device) for name in ("input_ids", "attention_mask"))
        states = bert(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        mean, shares = (states[1] + states[2] + states[-1]) / 3, mask[..., None].float()
        return from_text((mean * shares).sum(dim=1) / shares.sum(dim=1))

    head = Head(float(network.logit_scale.clamp(0, _LARGEST_SCALE).exp()))
    path = weights.required_file("vocab.txt", files, card)
    tokenizer = make_tokenizer(lambda: BertTokenizer(str(path), do_lower_case=True), path, card)
    reader = TextReader(tokenizer, _LONGEST_TEXT, is_padded=False)
    return TwoTowers(network, device, head, Preparation(size), reader, stages, images, parts, texts)
