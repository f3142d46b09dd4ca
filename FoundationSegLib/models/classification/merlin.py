"""Merlin: a CT of the abdomen and sentences of a report, compared as wholes and part by part.

Preparation, tokens and vectors are those of the package ``merlin-vlm`` 0.0.7 (MIT), which is not needed: it downloads
on construction. The picture tower is ResNet-152 inflated to three dimensions, the text tower a clinical Longformer.
A layer beside that of the vectors scores 1,692 phenotypes. Their names, in the order of its outputs, stand in the
authors' ``phenotypes.csv`` (``inference.md``: "the index of the model's output vector corresponds directly to a row in
this file"). Source: arXiv:2406.06512.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LongformerConfig, LongformerModel, RobertaTokenizer

from ...catalog.label_sets import labels_of
from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError, InputError
from ...imaging.volume import Volume, towards_ras
from ...progress import Progress
from ...requests.scoring import Head, TrainedLabels
from .. import weights
from ..preprocessing import PreparedVolume, to_device
from ..protocols import Check, TextVectors, VolumeVectors, unstoppable
from .two_towers import TEXT_HEADS, TextReader, build_network, count_layers, make_tokenizer, text_sizes, unit

Size = tuple[int, int, int]  # x, y, z
SIZE: Size = (224, 224, 160)  # voxels that the network sees
SPACING_MM = (1.5, 1.5, 3.0)
_LOWEST_HU, _HIGHEST_HU = -1000, 1000
_SAME = 1e-3  # MONAI's tolerance: spacings in mm, and grids, nearer than that are left as they are
_SLAB = 16  # planes resampled at once
_WORK = 10**9  # multiplications at once; cancel waits for them
_REPORTED = 10**6  # multiplications that a report counts as one
_PASSES = 250  # what it takes to write, normalise, rectify and copy a number, in multiplications
_WINDOW = 512  # tokens around a token that it sees
_LONGEST_TEXT = 1024  # tokens
_TOKENS = 2**10  # computed at once, as long as that is a text
_NOTE = (
    "not calibrated: a score is the sigmoid of a layer that was trained on the diagnosis codes of patients' records, "
    "and no probability that the image shows it"
)
_WORD = re.compile(r"\w+|[^\w\s]+")  # NLTK's wordpunct_tokenize


def prepare(volume: Volume, size: Size = SIZE, check: Check = unstoppable) -> PreparedVolume:
    """Turn an image of Hounsfield units to the right, the front and the head, resample it, and cut or fill it.

    Values go from 0 to 1; beyond the image there is air. In the order of MONAI's sums, so that no bit differs.
    """
    turn = towards_ras(volume.geometry)
    matrix = turn.geometry(volume.geometry).ijk_to_ras
    array = turn.turn(volume.array_kji).transpose(2, 1, 0)
    to_image, shape = _target_grid(array.shape, matrix)
    source, target, middle = [], [], np.ones(4)
    for axis, (count, length) in enumerate(zip(shape, size, strict=True)):
        cut, fill = max(0, count // 2 - length // 2), max(0, length - count) // 2
        source.append(slice(cut, min(count, cut + length)))
        target.append(slice(fill, fill + min(count, length)))
        middle[axis] = cut - fill + (length - 1) / 2
    middle, reach = (to_image @ middle)[:3] + 0.5, to_image.diagonal()[:3] * size / 2
    spans = list(zip((middle - reach).tolist(), (middle + reach).tolist(), strict=True))
    voxels = torch.zeros(size)
    inside = voxels[tuple(target)]
    if array.shape == shape and np.allclose(to_image, np.eye(4), atol=_SAME):
        inside[...] = torch.from_numpy(np.ascontiguousarray(array[tuple(source)], np.float32))
    else:
        values = np.empty(array.shape)
        for plane, stored in zip(values, array, strict=True):
            check()
            plane[...] = stored.astype(np.float32)
        _resample(torch.from_numpy(values), to_image, shape, source, inside, check)
    inside.sub_(_LOWEST_HU).div_(_HIGHEST_HU - _LOWEST_HU).clamp_(0, 1)
    return PreparedVolume(voxels[None, None], turn.spans_back(spans[::-1], volume.geometry.shape_kji))


def _target_grid(shape: Sequence[int], matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], Size]:
    """Lay voxels of the network's spacing along an image's axes, without its shear, from its first corner on.

    Returns:
        The matrix from the new voxels to those of the image, and the number of new ones.
    """
    linear = matrix[:3, :3]
    spacing = np.sqrt((linear * linear).sum(axis=0))
    steps = np.where(np.abs(spacing - SPACING_MM) <= _SAME, spacing, SPACING_MM)
    upper = np.linalg.cholesky(linear.T @ linear).T
    target = np.eye(4)
    target[:3, :3] = linear @ np.linalg.inv(upper) @ np.diag(np.sign(np.diag(upper)) * steps)
    corners = np.array([*itertools.product(*((0.0, count - 1.0) for count in shape))]).T
    corners = np.concatenate([corners, np.ones((1, 8))])
    reached = (np.linalg.solve(target, matrix) @ corners)[:3]
    count = np.round(np.ptp(reached, axis=1) + 1)
    lowest = (n for n in range(8) if np.allclose((reached - reached[:, n : n + 1]).min(axis=1), 0, rtol=_SAME))
    first = next(lowest, None)
    if first is None:  # a sheared image: about the same middle
        middle = linear @ (np.array(shape) / 2) + matrix[:3, 3]
        target[:3, 3] = middle - target[:3, :3] @ (count / 2)
    else:
        target[:3, 3] = (matrix @ corners)[:3, first]
    x, y, z = count.astype(int).tolist()
    return np.linalg.solve(matrix, target), (x, y, z)


def _resample(
    values: Tensor, to_image: NDArray[np.float64], shape: Size, source: list[slice], inside: Tensor, check: Check
) -> None:
    """Interpolate an image of float64 into ``inside``, which is the part ``source`` of the grid of this shape."""
    theta = _to_unit(values.shape) @ torch.from_numpy(to_image)
    theta = theta @ torch.from_numpy(np.linalg.inv(_to_unit(shape).numpy()))
    theta = theta[[2, 1, 0, 3]][:, [2, 1, 0, 3]][:3].T[None]
    lines = [
        (torch.linspace(-1, 1, count, dtype=torch.float64) * (count - 1) / count if count > 1 else torch.zeros(1))[part]
        for count, part in zip(shape, source, strict=True)
    ]
    for start in range(0, len(lines[0]), _SLAB):
        check()
        parts = (lines[0][start : start + _SLAB].double(), *(line.double() for line in lines[1:]))
        x, y, z = torch.meshgrid(*parts, indexing="ij")
        points = torch.stack([z, y, x, torch.ones_like(x)], dim=-1)
        positions = points.reshape(1, -1, 4).bmm(theta).reshape(1, *x.shape, 3)
        sampled = functional.grid_sample(values[None, None], positions, padding_mode="border", align_corners=False)
        inside[start : start + _SLAB] = sampled[0, 0]


def _to_unit(shape: Sequence[int]) -> Tensor:
    """The matrix from voxels to the range from -1 to 1, from edge to edge."""
    counts = torch.tensor(shape, dtype=torch.float64)
    matrix = torch.diag(torch.cat([2.0 / counts, torch.ones(1, dtype=torch.float64)]))
    matrix[:3, 3] = 1.0 / counts - 1.0
    return matrix


def _slabs(image: Tensor, kernel: int, stride: int, planes: int) -> Iterator[tuple[slice, int, Tensor]]:
    """Yield planes of a result, their number in all, and the planes of the image behind them, with zeros beyond it."""
    depth, margin = image.shape[2], kernel // 2
    count = (depth + 2 * margin - kernel) // stride + 1
    for start in range(0, count, planes):
        stop = min(start + planes, count)
        first, last = start * stride - margin, (stop - 1) * stride - margin + kernel
        slab, beyond = image[:, :, max(0, first) : min(last, depth)], (max(0, -first), max(0, last - depth))
        yield slice(start, stop), count, functional.pad(slab, (0, 0, 0, 0, *beyond)) if any(beyond) else slab


@dataclass(slots=True)
class _Pace:
    """Long work in steps of ``most`` multiplications: each is reported, with those ``done`` of about ``total``."""

    progress: Progress
    most: int
    total: int
    done: int = 0

    def step(self, multiplications: int) -> None:
        """Report that a step begins, which can be stopped here."""
        self.progress.step("classify", min(self.done, self.total) // _REPORTED, self.total // _REPORTED)
        self.done += multiplications


def _joined(
    work: Callable[[Tensor], Tensor],
    slabs: Iterator[tuple[slice, int, Tensor]],
    pace: _Pace,
    each: int,
    added: Tensor | None = None,
) -> Tensor:
    """Compute a result slab by slab; a plane takes ``each`` multiplications; ``added`` gets the sum."""
    result = added
    for part, count, slab in slabs:
        pace.step(each * (part.stop - part.start))
        planes = work(slab)
        if result is None:
            result = planes.new_empty((*planes.shape[:2], count, *planes.shape[3:]))
        result[:, :, part] = planes if added is None else planes.add_(added[:, :, part]).relu_()
    assert result is not None
    return result


def _normalised(
    image: Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d, pace: _Pace, added: Tensor | None = None, ends: bool = False
) -> Tensor:
    """Convolve and normalise, then rectify, unless it ``ends`` there; ``added`` is first added, and overwritten."""
    weight = conv.weight.sum(dim=1, keepdim=True) if image.shape[1] == 1 else conv.weight  # grey is three equal colours
    each = _multiplications(weight) * (image.shape[3] * image.shape[4] // conv.stride[1] ** 2)
    planes = max(1, pace.most // each)

    def work(slab: Tensor) -> Tensor:
        result = norm(functional.conv3d(slab, weight, None, conv.stride, (0, *conv.padding[1:])))
        return result if ends or added is not None else result.relu_()

    return _joined(work, _slabs(image, conv.kernel_size[0], conv.stride[0], planes), pace, each, added)


def _multiplications(weight: Tensor) -> int:
    return weight.numel() + _PASSES * len(weight)


class _Bottleneck(nn.Module):
    def __init__(self, width: int, inner: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(width, inner, 1, bias=False), nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3, self.bn3 = nn.Conv3d(inner, 4 * inner, 1, bias=False), nn.BatchNorm3d(4 * inner)
        if is_first:
            across = nn.Conv3d(width, 4 * inner, 1, stride, bias=False)
            self.downsample = nn.Sequential(across, nn.BatchNorm3d(4 * inner))

    def forward(self, image: Tensor, pace: _Pace) -> Tensor:
        """Return the image after the block; it is overwritten."""
        inner = _normalised(image, self.conv1, self.bn1, pace)
        inner = _normalised(inner, self.conv2, self.bn2, pace)
        if hasattr(self, "downsample"):
            image = _normalised(image, *self.downsample, pace, ends=True)
        return _normalised(inner, self.conv3, self.bn3, pace, image)


class _InflatedResNet(nn.Module):
    def __init__(self, state: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        width = state[f"{prefix}.conv1.weight"].shape[0]
        self.conv1 = nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        for number in (1, 2, 3, 4):
            layer = f"{prefix}.layer{number}"
            inner, depth = state[f"{layer}.0.conv1.weight"].shape[0], count_layers(state, layer)
            blocks = [_Bottleneck(width, inner, 1 if number == 1 else 2, is_first=True)]
            width = 4 * inner
            blocks += [_Bottleneck(width, inner, 1, is_first=False) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.classifier = nn.Conv3d(width, state[f"{prefix}.classifier.bias"].shape[0], 1)  # of the phenotypes
        self.contrastive_head = nn.Conv3d(width, state[f"{prefix}.contrastive_head.bias"].shape[0], 1)

    def forward(self, voxels: Tensor, progress: Progress, most: int = _WORK) -> Tensor:
        """(1, 1, X, Y, Z) to the features of its parts, (Z, X, Y, D), whose mean are those of the whole."""
        layers, count = (self.layer1, self.layer2, self.layer3, self.layer4), voxels.numel() // 4
        total = _multiplications(self.conv1.weight) * count
        for number, layer in enumerate(layers, start=1):  # each sees half of what the one before saw, along all axes
            weights_of = (module.weight for module in layer.modules() if isinstance(module, nn.Conv3d))
            total += sum(map(_multiplications, weights_of)) * (count // 8**number)
        pace = _Pace(progress, most, total)
        image = _normalised(voxels.permute(0, 1, 4, 2, 3), self.conv1, self.bn1, pace)
        slabs, each = _slabs(image, 3, 2, 4), _PASSES * image[0, :, 0].numel()
        image = _joined(lambda slab: functional.max_pool3d(slab, 3, 2, (0, 1, 1)), slabs, pace, each)
        for block in itertools.chain(*layers):
            image = block(image, pace)
        return image[0].permute(1, 2, 3, 0)


def sanitised(text: str) -> str:
    """Return a text in small letters, words and signs apart, as the authors' ``sanitize_report``."""
    return " ".join(_WORD.findall(text.lower()))


class _ReportEncoder(nn.Module):
    def __init__(self, config: LongformerConfig, projected: int) -> None:
        super().__init__()
        self.text_encoder = LongformerModel(config)
        self.linear_layer = nn.Linear(config.hidden_size, projected)

    def forward(self, ids: Tensor, is_token: Tensor, check: Check) -> Tensor:
        """(texts, tokens) to (texts, D).

        As Longformer's own code, which fills every text up to 512 tokens: a token sees those up to 256 away.
        """
        states, numbers = self.text_encoder.embeddings(input_ids=ids), torch.arange(ids.shape[1], device=ids.device)
        distance = (numbers[:, None] - numbers).abs()
        seen = (is_token[:, None, None] & (distance <= _WINDOW // 2)) | (distance == 0)
        for layer in self.text_encoder.encoder.layer:
            check()
            own = layer.attention.self
            q, k, v = (
                project(states).unflatten(-1, (TEXT_HEADS, -1)).transpose(1, 2)
                for project in (own.query, own.key, own.value)
            )
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
            states = layer.attention.output(attended, states)
            states = layer.output(layer.intermediate(states), states)
        return self.linear_layer(states[:, 0])


class MerlinNetwork(nn.Module):
    """Both towers, with the sizes of a checkpoint: its tensors' shapes say all of them.

    Raises:
        KeyError, ValueError: they are another network's.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.encode_image = nn.ModuleDict({"i3_resnet": _InflatedResNet(state, "encode_image.i3_resnet")})
        sizes = text_sizes(state, "encode_text.text_encoder")
        config = LongformerConfig(**sizes, type_vocab_size=1, layer_norm_eps=1e-5, attention_window=_WINDOW)
        self.encode_text = _ReportEncoder(config, state["encode_text.linear_layer.bias"].shape[0])
        self.logit_scale = nn.Parameter(torch.ones(()))


@dataclass(frozen=True, slots=True)
class Merlin:
    """The adapter, in float32.

    Attributes:
        network: both towers, on the device.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.
        head: the scale of cosines in training.
        reader: turns texts into tokens.
        size: the voxels that are seen.
        card: names the set of the phenotypes.
        layer: of the phenotypes, (phenotypes, D + 1), the bias last.
    """

    network: MerlinNetwork
    device: str
    head: Head
    reader: TextReader
    size: Size
    card: ModelCard
    layer: NDArray[np.float64]
    precision: str = "float32"

    @property
    def labels(self) -> TrainedLabels | None:
        """The phenotypes, by the sigmoid of their layer as the authors have it; None where their names are not here.

        Raises:
            CheckpointError: there are more or fewer names than outputs.
        """
        try:
            labels = labels_of(self.card)
        except InputError:
            return None  # who asks for them is told why before
        if len(labels.names) != len(self.layer):
            names = f"the set {labels.id} names {len(labels.names)} labels, and the checkpoint scores {len(self.layer)}"
            raise CheckpointError(f"{self.card.title}: {names}; import the right table")
        return TrainedLabels(labels.names, self.layer, np.full(len(self.layer), 0.5), _NOTE, labels.id)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.network)

    @torch.inference_mode()
    def encode_volume(self, volume: Volume, progress: Progress) -> VolumeVectors:
        """Encode an image, as a whole and in parts of 48 mm.

        Raises:
            Cancelled: the user stopped it.
        """
        prepared = prepare(volume, self.size, lambda: progress.step("encode", 0, 0))
        turn = towards_ras(volume.geometry)
        tower = self.network.encode_image["i3_resnet"]
        features = tower(to_device(prepared.voxels, self.device), progress)

        def vectors(parts: Tensor, trained: VolumeVectors | None = None) -> VolumeVectors:
            cells_kji = np.ascontiguousarray(turn.turn_back(unit(parts).transpose(0, 2, 1, 3)))
            return VolumeVectors(unit(parts.mean(dim=(0, 1, 2))), cells_kji, prepared.spans_kji, trained)

        parts = functional.linear(features, tower.contrastive_head.weight.flatten(1), tower.contrastive_head.bias)
        return vectors(parts, vectors(functional.pad(features, (0, 1), value=1.0)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """Encode texts, one vector for each."""
        return self.reader.encode([*map(sanitised, texts)], lambda tokens: self._texts(tokens, check), check)

    def _texts(self, tokens: Mapping[str, Tensor], check: Check) -> Tensor:
        ids, mask = (tokens[name].to(self.device) for name in ("input_ids", "attention_mask"))
        rows = max(1, _TOKENS // ids.shape[1])
        parts = zip(ids.split(rows), mask.bool().split(rows), strict=True)
        return torch.cat([self.network.encode_text(part, is_token, check) for part, is_token in parts])


def load(card: ModelCard, files: Mapping[str, Path], device: str, size: Size = SIZE) -> Merlin:
    """Load the adapter with its files; ``size`` is what is seen, in voxels.

    Raises:
        CheckpointError: a file is missing or damaged, or does not hold Merlin's network.
    """
    path = weights.required_file(card.source.files[0].name, files, card)
    state = weights.read_pickle(path, card)
    network = build_network(lambda: MerlinNetwork(state), state, card, device, path.name)
    vocabulary, merges = (weights.required_file(name, files, card) for name in ("vocab.json", "merges.txt"))
    tokenizer = make_tokenizer(lambda: RobertaTokenizer(str(vocabulary), str(merges)), vocabulary, card)
    scale = float(network.logit_scale.exp())
    if not 0 < scale < float("inf"):
        raise weights.unusable(path.name, card)
    reader, last = TextReader(tokenizer, _LONGEST_TEXT, is_padded=False), network.encode_image["i3_resnet"].classifier
    layer = torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1).detach().double().cpu().numpy()
    return Merlin(network, device, Head(scale), reader, size, card, layer)
