"""TorchXRayVision: 18 findings of a chest X-ray, scored by a DenseNet-121 that was trained on them and reads no words.

Preparation, network and scores are those of the package ``torchxrayvision`` 1.5.7 (Apache-2.0), which is not needed: it
downloads where it is made, and runs the release file, a pickle of the whole network. Here that file is read through an
unpickler that knows the names it needs and no others. Source: Cohen J P, et al. MIDL 2022, arXiv:2111.00595.
"""

import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet

from ...catalog.label_sets import labels_of
from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError
from ...requests.scoring import TrainedLabels
from .. import weights
from ..preprocessing import channels_first, to_device
from ..protocols import Check, unstoppable
from .two_towers import build_network, grid, unit

SIZE = 224  # pixels, the side of the square that the network sees
BLOCKS = (6, 12, 24, 16)  # layers of each block of DenseNet-121
_HIGHEST = 1024.0  # black is at minus this
_NOTE = (
    "not calibrated: a score of one half is the operating point that the model's authors chose on their images, and no "
    "probability"
)
# Where the authors say yes, in the order of the labels: model_urls["all"]["op_threshs"] of the package.
_OPERATING_POINTS = (
    *(0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724, 0.103246614),
    *(0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766, 0.053369623, 0.035975814),
    *(0.20204692, 0.05015312),
)


class _StoredModule:
    """Stands for every class of a network in a pickle: keeps the state of an object, and takes nothing else.

    A state can be set on its objects alone, never on the class: ``__setstate__`` wants both.
    """

    __slots__ = ("state",)
    dump_patches = False  # torch asks for it, and would write a file

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield the weights by their names."""
        own = {**self.state["_parameters"], **self.state["_buffers"]}
        yield from ((prefix + name, value) for name, value in own.items() if isinstance(value, Tensor))
        for name, module in self.state["_modules"].items():
            yield from module.tensors(f"{prefix}{name}.")


# The classes of the network, as the file names them.
_MODULES = (
    *("torchxrayvision.models.DenseNet", "torchxrayvision.models._DenseBlock", "torchxrayvision.models._DenseLayer"),
    *("torchxrayvision.models._Transition", "torch.nn.modules.activation.ReLU", "torch.nn.modules.conv.Conv2d"),
    *("torch.nn.modules.batchnorm.BatchNorm2d", "torch.nn.modules.container.Sequential"),
    *("torch.nn.modules.linear.Linear", "torch.nn.modules.pooling.AvgPool2d", "torch.nn.modules.pooling.MaxPool2d"),
)
# Every name that the file may use, and what stands for it here. Nothing of it can be changed by a file: functions are
# there as the methods that call them, which have no attributes.
_ALLOWED: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2.__call__,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter.__call__,
    **dict.fromkeys(_MODULES, _StoredModule),
}


class _Unpickler(pickle._Unpickler):
    """Refuses every name but the allowed ones, so that no code of the file's choice can run.

    It is Python's own in Python, as torch's is: a false number in a file makes that in C take all memory. Operations
    of protocols after 2, torch's, are unknown to it; so are the codes that stand for names registered elsewhere.
    """

    dispatch: ClassVar = {n: act for n, act in pickle._Unpickler.dispatch.items() if n < 0x82 or 0x84 < n < 0x8C}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"unsupported GLOBAL {module}.{name}") from None  # as torch says it


_PICKLE = SimpleNamespace(
    __name__="pickle", Unpickler=_Unpickler, load=lambda file, **options: _Unpickler(file, **options).load()
)


def read_module(path: Path, card: ModelCard) -> dict[str, Tensor]:
    """Read the weights of a network that was pickled as a whole, in the form that torch had before 1.6.

    ``weights_only=True`` cannot be used, whatever classes are allowed: in that form a class of a network is stored as
    a persistent id of the kind "module" with its source, and torch's safe unpickler takes those of the kind "storage"
    alone. A file in torch's later form, a zip file, is refused: the release file is too small to be one.

    Raises:
        CheckpointError: the card names no hash, or the file is damaged or holds something else.
    """
    if not card.source.files[0].sha256:
        raise CheckpointError(f"{card.title}: its card names no hash, without which {path.name} is not opened")
    try:
        content = path.read_bytes()
        if content.startswith(b"PK"):
            raise pickle.UnpicklingError("a zip file may be TorchScript, which torch would run")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the classes are not those of the file
            # Not from the path: torch would unpack an archive of its oldest form, a tar file, to the disk.
            module = torch.load(io.BytesIO(content), map_location="cpu", pickle_module=_PICKLE, weights_only=False)
        return dict(module.tensors())
    except weights.DAMAGED as error:
        raise weights.unreadable(path, card, error) from error


def make_network(labels: int, blocks: Sequence[int] = BLOCKS) -> DenseNet:
    """Make a DenseNet that sees grey pictures, with any weights."""
    network = DenseNet(block_config=(*blocks,), num_classes=labels)
    network.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def prepare(image: NDArray[np.uint8]) -> Tensor:
    """Bring a square picture, (rows, columns) or in colour, whose red is taken, to (1, 1, 224, 224)."""
    levels = channels_first(image if image.ndim == 2 else image[..., 0]).float()
    scaled = (2 * (levels / 255) - 1) * _HIGHEST
    return functional.interpolate(scaled, (SIZE, SIZE), mode="bilinear", antialias=True)


@dataclass(frozen=True, slots=True)
class TorchXRayVision:
    """The adapter, in float32.

    Attributes:
        network: on the device.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.
        labels: the last layer, and where its authors say yes.
        sees_middle: of a picture that is not square, the middle is seen, as in training.
    """

    network: DenseNet
    device: str
    labels: TrainedLabels
    sees_middle: bool = True
    precision: str = "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.network)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode pictures in one batch: (pictures, D), the features and a one, brought to unit length."""
        return _homogeneous(self._features(images, check).mean(dim=(2, 3)))

    @torch.inference_mode()
    def encode_parts(self, images: Sequence[NDArray[np.uint8]], check: Check = unstoppable) -> NDArray[np.float32]:
        """Encode the parts of pictures: (pictures, rows, columns, D); the logit of a label is the mean of theirs."""
        return _homogeneous(grid(self._features(images, check).flatten(2).transpose(1, 2)))

    def _features(self, images: Sequence[NDArray[np.uint8]], check: Check) -> Tensor:
        with weights.checked(self.network.features.children(), check):
            pixels = to_device(torch.cat([prepare(image) for image in images]), self.device)
            return functional.relu(self.network.features(pixels))


def _homogeneous(features: Tensor) -> NDArray[np.float32]:
    """Append a one, by which the features' own length can be told from vectors of unit length."""
    return unit(functional.pad(features, (0, 1), value=1.0))


def load(card: ModelCard, files: Mapping[str, Path], device: str, blocks: Sequence[int] = BLOCKS) -> TorchXRayVision:
    """Load the adapter with its file; ``blocks`` are the numbers of layers of the network's blocks.

    Raises:
        CardError, InputError: the card names no labels that are there.
        CheckpointError: the file is missing or damaged, or does not hold the network.
    """
    labels, path = labels_of(card), weights.only_file(card, files)
    state, count = read_module(path, card), len(labels.names)
    network = build_network(lambda: make_network(count, blocks), state, card, device, path.name)
    last = torch.cat([network.classifier.weight, network.classifier.bias[:, None]], dim=1).double().cpu().numpy()
    points = np.array(_OPERATING_POINTS[:count])
    return TorchXRayVision(network, device, TrainedLabels(labels.names, last, points, _NOTE, labels.id))
