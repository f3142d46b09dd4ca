"""TorchXRayVision's and FLAIR's networks as their authors build them, and small files of them with random weights."""

import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet
from transformers import BertConfig, BertModel

from Testing.models.small_image_text import bert_words, randomise

XRV_BLOCKS = (2, 1, 2, 2)
FLAIR_SIZE = 64  # pixels


class _DenseLayer(nn.Sequential):
    def __init__(self, width: int) -> None:
        layers = [nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, 128, 1, bias=False)]
        layers += [nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.Conv2d(128, 32, 3, padding=1, bias=False)]
        super().__init__(OrderedDict(zip(("norm1", "relu1", "conv1", "norm2", "relu2", "conv2"), layers, strict=True)))
        self.drop_rate = 0

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, super().forward(features)], dim=1)


class _DenseBlock(nn.Sequential):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__(OrderedDict((f"denselayer{n + 1}", _DenseLayer(width + 32 * n)) for n in range(layers)))


class _Transition(nn.Sequential):
    def __init__(self, width: int) -> None:
        layers = [nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width // 2, 1, bias=False)]
        super().__init__(OrderedDict(zip(("norm", "relu", "conv", "pool"), (*layers, nn.AvgPool2d(2)), strict=True)))


class DenseNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...] = XRV_BLOCKS, labels: int = 18) -> None:
        super().__init__()
        layers = [("conv0", nn.Conv2d(1, 64, 7, 2, 3, bias=False)), ("norm0", nn.BatchNorm2d(64))]
        layers += [("relu0", nn.ReLU(inplace=True)), ("pool0", nn.MaxPool2d(3, 2, 1))]
        width = 64
        for n, count in enumerate(blocks, start=1):
            layers.append((f"denseblock{n}", _DenseBlock(count, width)))
            width += 32 * count
            if n < len(blocks):
                layers.append((f"transition{n}", _Transition(width)))
                width //= 2
        self.features = nn.Sequential(OrderedDict([*layers, ("norm5", nn.BatchNorm2d(width))]))
        self.classifier = nn.Linear(width, labels)
        self.apply_sigmoid, self.weights = False, None
        self.register_buffer("op_threshs", None)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.features(pixels)).mean(dim=(2, 3)))


PARTS = (DenseNet, _DenseBlock, _DenseLayer, _Transition)


def small_densenet() -> DenseNet:
    """Random weights whose scores lie on both sides of the operating points."""
    network = randomise(DenseNet(), seed=5)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e5 if name.endswith("norm0") else 4.0)
    network.classifier.weight.data.mul_(2.5)
    network.classifier.bias.data.fill_(-3.0)
    return network


def save_module(network: nn.Module, path: Path, *, is_zip: bool = False) -> None:
    """Pickle a network as a whole under the names of its authors' package, in the form that torch had before 1.6."""
    module, before = ModuleType("torchxrayvision.models"), {kind: kind.__module__ for kind in PARTS}
    for kind in PARTS:
        setattr(module, kind.__name__, kind)
        kind.__module__ = module.__name__
    sys.modules |= {"torchxrayvision": ModuleType("torchxrayvision"), module.__name__: module}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these classes have no source file of that name
            torch.save(network, path, _use_new_zipfile_serialization=is_zip)
    finally:
        for kind, name in before.items():
            kind.__module__ = name
        del sys.modules["torchxrayvision"], sys.modules[module.__name__]


def write_torchxrayvision(folder: Path) -> dict[str, Path]:
    """As the release file is stored."""
    from Testing.models.small_models import CATALOGUE

    path = folder / CATALOGUE["torchxrayvision-densenet121"].source.files[0].name
    save_module(small_densenet(), path)
    return {path.name: path}


def small_resnet() -> ResNet:
    return ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=8)


class _Projection(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, 32, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = self.projection(vectors / vectors.norm(dim=-1, keepdim=True))
        return vectors / vectors.norm(dim=-1, keepdim=True)


class FlairReference(nn.Module):
    """The authors' network: modules under their names, and what becomes of pixels and of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model, self.text_model = nn.Module(), nn.Module()
        self.vision_model.model = small_resnet()
        self.vision_model.model.fc = nn.Identity()
        self.vision_model.projection_head_vision = _Projection(2048)
        sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 192}
        self.text_model.model = BertModel(BertConfig(vocab_size=3000, **sizes))
        self.text_model.projection_head_text = _Projection(96)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def images(self, pixels: Tensor) -> Tensor:
        return self.vision_model.projection_head_vision(self.vision_model.model(pixels))

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.text_model.model(input_ids, attention_mask, output_hidden_states=True)["hidden_states"]
        stacked = torch.stack([states[1], states[2], states[-1]])
        return self.text_model.projection_head_text(stacked.permute(1, 0, 2, 3).mean(2).mean(1))


def write_flair(folder: Path) -> dict[str, Path]:
    """As `jusiro2/FLAIR` is stored, with the vocabulary of its text tower's repository."""
    network = randomise(FlairReference(), seed=6)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_var.fill_(0.25)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(bert_words()) + "\n", encoding="utf-8")
    return {path.name: path for path in folder.iterdir()}
