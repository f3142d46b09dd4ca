"""COLIPRI: a chest CT and sentences, compared as wholes and part by part.

Preparation, tokens and vectors are those of the package ``colipri`` 0.1.3 (MIT), which is not needed: it builds its
text tower from code of the Hub. The picture tower is Primus (arXiv:2503.01835), a vision transformer with rotary
positions in three dimensions; the text tower is a BERT. Source: arXiv:2510.15042.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, BertTokenizer

from ...catalog.model_cards import ModelCard
from ...errors import InputError
from ...imaging.volume import Volume, towards_ras
from ...progress import Progress
from ...requests.scoring import Head
from .. import weights
from ..preprocessing import PreparedVolume, to_device
from ..protocols import Check, TextVectors, VolumeVectors, unstoppable
from .two_towers import TextReader, build_network, count_layers, make_tokenizer, read_weights, text_sizes, unit

SIZE = 192  # voxels, the side of the cube that the network sees
SPACING_MM = 2.0
_LOWEST_HU, _HIGHEST_HU = -1000, 1000
_PATCH = 8  # voxels, the side of a part
_HEADS = 12  # of the picture tower, of the text tower and of both poolings
_LONGEST_TEXT = 512  # tokens
_TOKENS = 96  # computed at once; cancel waits for them
_ROUNDS, _LAST_ROUNDS = 3, 4  # over all tokens, in a layer and after the last
_PIXEL_TYPES = {"u2": np.int32, "u4": np.int64, "f2": np.float32}  # those that torchio or SimpleITK do not take


def prepare(volume: Volume, size: int = SIZE, check: Check = unstoppable) -> PreparedVolume:
    """Turn an image of Hounsfield units to the right, the front and the head, bring it to 2 mm, and cut or fill it.

    Values go from -1 to 1. Whole numbers stay whole where they are resampled, as torchio has it.

    Raises:
        InputError: it is thinner than a voxel of the network.
    """
    turn = towards_ras(volume.geometry)
    resampled = _resampled(turn.turn(volume.array_kji), turn.geometry(volume.geometry).ijk_to_ras, check)
    spacing_mm = volume.geometry.spacing_mm[::-1]
    lines, spans = [], []
    for axis, count in enumerate(resampled.shape):
        stored = turn.axes[axis]
        cut, fill = -(min(0, size - count) // 2), -(-max(0, size - count) // 2)
        lines.append((slice(cut, cut + size), (fill, max(0, size - count) - fill)))
        step = SPACING_MM / spacing_mm[stored]
        length = volume.array_kji.shape[stored]
        first = length / 2 + (cut - fill - count / 2) * step
        spans.append((first, first + size * step))
    part, lowest = resampled[tuple(cut for cut, _ in lines)], _scaled(resampled.min()[None])[0]
    check()
    cube = np.pad(_scaled(part), [fill for _, fill in lines], constant_values=lowest).transpose(2, 1, 0)
    check()
    voxels = torch.from_numpy(np.ascontiguousarray(cube))[None, None]
    return PreparedVolume(voxels, turn.spans_back(spans, volume.geometry.shape_kji))


def _scaled(values: NDArray[np.generic]) -> NDArray[np.float32]:
    scaled = np.clip(values, _LOWEST_HU, _HIGHEST_HU).astype(np.float32)
    scaled -= _LOWEST_HU
    scaled /= _HIGHEST_HU - _LOWEST_HU
    scaled *= 2
    scaled -= 1
    return scaled


def _resampled(array_kji: NDArray[np.generic], ijk_to_ras: NDArray[np.float64], check: Check) -> NDArray[np.generic]:
    """Resample to 2 mm along the image's own axes, about the same middle; a single slice stays one."""
    dtype = _PIXEL_TYPES.get(array_kji.dtype.str[1:], array_kji.dtype.newbyteorder("="))
    values = np.empty(array_kji.shape, dtype)
    for plane, stored in zip(values, array_kji, strict=True):
        check()
        plane[...] = stored
    image = sitk.GetImageFromArray(values)
    check()
    to_lps = np.diag([-1.0, -1.0, 1.0])
    spacing = np.sqrt((ijk_to_ras[:3, :3] ** 2).sum(axis=0))
    image.SetOrigin((to_lps @ ijk_to_ras[:3, 3]).tolist())
    image.SetSpacing(spacing.tolist())
    direction = to_lps @ (ijk_to_ras[:3, :3] / spacing)
    image.SetDirection(direction.flatten().tolist())
    size = np.array(image.GetSize())
    new_size = np.where(size == 1, 1, np.floor(size * np.array(image.GetSpacing()) / SPACING_MM)).astype(int)
    if not new_size.all():
        raise InputError(f"the image is thinner than {SPACING_MM:g} mm, which the model sees as one voxel")
    last = np.array(image.TransformIndexToPhysicalPoint((size - 1).tolist()))
    middle = (last + np.array(image.GetOrigin())) / 2
    direction = np.array(image.GetDirection()).reshape(3, 3)
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetSize(new_size.tolist())
    resampler.SetOutputSpacing([SPACING_MM] * 3)
    resampler.SetOutputOrigin((middle - direction @ ((new_size - 1) / 2 * np.full(3, SPACING_MM))).tolist())
    resampler.SetOutputDirection(image.GetDirection())
    resampled = resampler.Execute(image)
    check()
    return sitk.GetArrayFromImage(resampled)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, width)

    def towards(self, tokens: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of some tokens, (1, heads, tokens, D), turned by their positions."""
        q, k, v = (_by_head(layer(tokens)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return _turned(q, turns), _turned(k, turns), v

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(self.norm(attended))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.norm, self.fc2 = nn.LayerNorm(hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.norm(functional.silu(self.fc1_g(tokens)) * self.fc1_x(tokens)))


def _by_head(tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (_HEADS, -1)).transpose(1, 2)


def _parts(count: int, check: Check) -> Iterator[slice]:
    """Yield parts of so many tokens that the work on them can be stopped in between."""
    for start in range(0, count, _TOKENS):
        check()
        yield slice(start, start + _TOKENS)


def _in_parts(work: Callable[[Tensor], Tensor], tokens: Tensor, width: int, check: Check) -> Tensor:
    """Compute what is done to each token by itself, (1, tokens, ...) to (1, tokens, width), part by part."""
    result = tokens.new_empty((*tokens.shape[:2], width))
    for part in _parts(tokens.shape[1], check):
        result[:, part] = work(tokens[:, part])
    return result


class _RotaryBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), _Mlp(width, hidden)
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor, turns: Tensor, check: Check) -> None:
        """Change the tokens, which are overwritten."""
        count, width = tokens.shape[1:]
        q, k, v = tokens.new_empty((3, 1, _HEADS, count, width // _HEADS))
        for part in _parts(count, check):
            q[:, :, part], k[:, :, part], v[:, :, part] = self.attn.towards(self.norm1(tokens[:, part]), turns[part])
        for part in _parts(count, check):
            tokens[:, part] += self.gamma_1 * self.attn(q[:, :, part], k, v)
        for part in _parts(count, check):
            tokens[:, part] += self.gamma_2 * self.mlp(self.norm2(tokens[:, part]))


def _turned(heads: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of numbers by the angles of their position: (1, heads, tokens, D), and (tokens, 2 D) sine, cosine."""
    sine, cosine = turns.chunk(2, dim=-1)
    swapped = torch.stack([-heads[..., 1::2], heads[..., ::2]], dim=-1).flatten(-2)
    return heads * cosine + swapped * sine


def _position_turns(side: int, width: int) -> Tensor:
    """Sine and cosine of the positions of a cube of parts, (side cubed, 2 width); ``width`` is that of a head."""
    bands = 1.0 / 10000.0 ** (torch.arange(width // 6).float() / (width // 6))
    line = torch.arange(side).float() / side * side
    positions = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)
    angles = (positions[..., None] * bands).reshape(side**3, -1).repeat_interleave(2, dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _Pooling(nn.Module):
    """Attention of the mean to all tokens: (B, N, D) to (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)

    def forward(self, tokens: Tensor, is_token: Tensor) -> Tensor:
        """Pool texts; ``is_token`` (B, N) is False where there is padding."""
        shares = is_token[..., None].to(tokens.dtype)
        mean = (tokens * shares).sum(dim=1) / shares.sum(dim=1)
        return self.attn(mean[:, None], tokens, tokens, key_padding_mask=~is_token)[0][:, 0]

    def of_volume(self, tokens: Tensor, check: Check) -> tuple[Tensor, Tensor]:
        """Pool a volume, and project each of its tokens as if it alone were pooled, (1, N, D)."""
        width = tokens.shape[-1]
        layers = zip(self.attn.in_proj_weight.split(width), self.attn.in_proj_bias.split(width), strict=True)
        query, keys, values = (partial(functional.linear, weight=weight, bias=bias) for weight, bias in layers)
        k, v = (_in_parts(layer, tokens, width, check) for layer in (keys, values))
        q = query(tokens.mean(dim=1, keepdim=True))
        pooled = functional.scaled_dot_product_attention(*map(_by_head, (q, k, v))).transpose(1, 2).flatten(2)
        return self.attn.out_proj(pooled)[:, 0], _in_parts(self.attn.out_proj, v, width, check)


class _ImageEncoder(nn.Module):
    def __init__(self, depth: int, width: int, hidden: int, projected: int) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.down_projection = nn.ModuleDict({"proj": nn.Conv3d(1, width, _PATCH, _PATCH)})
        self.backbone.eva = nn.Module()
        self.backbone.eva.blocks = nn.ModuleList(_RotaryBlock(width, hidden) for _ in range(depth))
        self.backbone.eva.norm = nn.LayerNorm(width)
        self.backbone.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # of the training; in the checkpoint
        self.projector, self.pooler = nn.Conv3d(width, projected, 1), _Pooling(projected)

    def forward(self, voxels: Tensor, turns: Tensor, check: Check) -> Tensor:
        """(1, 1, X, Y, Z) to the vectors of its parts before pooling, (1, parts, D); z runs the fastest."""
        project = self.backbone.down_projection["proj"]
        tokens = voxels.new_empty((1, len(turns), project.out_channels))
        for slab, part in zip(voxels.split(_PATCH, dim=2), tokens.chunk(voxels.shape[2] // _PATCH, dim=1), strict=True):
            check()
            part[...] = project(slab).flatten(2).transpose(1, 2)
        for block in self.backbone.eva.blocks:
            block(tokens, turns, check)
        weight, bias = self.projector.weight.flatten(1), self.projector.bias
        norm = self.backbone.eva.norm
        return _in_parts(lambda part: functional.linear(norm(part), weight, bias), tokens, len(bias), check)


class _TextEncoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.backbone, self.pooler = BertModel(config, add_pooling_layer=False), _Pooling(config.hidden_size)


class ColipriNetwork(nn.Module):
    """Both towers, with the sizes of a checkpoint: its tensors' shapes say all of them.

    Raises:
        KeyError, ValueError: they are another network's.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        image = "image_encoder.backbone.eva.blocks"
        hidden, width = state[f"{image}.0.mlp.fc1_g.weight"].shape
        projected = state["image_encoder.projector.bias"].shape[0]
        if width % (6 * _HEADS) or projected % _HEADS:
            raise ValueError("the widths do not fit the heads")
        self.image_encoder = _ImageEncoder(count_layers(state, image), width, hidden, projected)
        self.text_encoder = _TextEncoder(BertConfig(**text_sizes(state, "text_encoder.backbone")))
        self.softmax_temperature = nn.Parameter(torch.ones(()))


@dataclass(frozen=True, slots=True)
class Colipri:
    """The adapter, in float32.

    Attributes:
        network: both towers, on the device.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.
        head: the scale of cosines, which is one over the temperature of the checkpoint.
        reader: turns texts into tokens.
        turns: the rotary positions of the parts.
        size: the side of the cube, in voxels.
    """

    network: ColipriNetwork
    device: str
    head: Head
    reader: TextReader
    turns: Tensor
    size: int
    precision: str = "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.network)

    @torch.inference_mode()
    def encode_volume(self, volume: Volume, progress: Progress) -> VolumeVectors:
        """Encode an image, as a whole and in parts of 16 mm.

        Raises:
            InputError: it is thinner than a voxel of the network.
            Cancelled: the user stopped it.
        """
        encoder, side = self.network.image_encoder, self.size // _PATCH
        rounds, done = len(encoder.backbone.eva.blocks) * _ROUNDS + _LAST_ROUNDS, itertools.count()
        total = side + rounds * math.ceil(side**3 / _TOKENS)

        def check() -> None:
            progress.step("classify", next(done), total)

        cube = prepare(volume, self.size, lambda: progress.step("encode", 0, 0))
        tokens = encoder(to_device(cube.voxels, self.device), self.turns, check)
        whole, parts = encoder.pooler.of_volume(tokens, check)
        cells_zyx = unit(parts)[0].reshape(side, side, side, -1).transpose(2, 1, 0, 3)
        progress.check()
        cells_kji = np.ascontiguousarray(towards_ras(volume.geometry).turn_back(cells_zyx))
        return VolumeVectors(unit(whole)[0], cells_kji, cube.spans_kji)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], check: Check = unstoppable) -> TextVectors:
        """Encode texts, one vector for each."""
        return self.reader.encode(texts, self._texts, check)

    def _texts(self, tokens: Mapping[str, Tensor]) -> Tensor:
        ids, mask = (tokens[name].to(self.device) for name in ("input_ids", "attention_mask"))
        encoder = self.network.text_encoder
        states = encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return encoder.pooler(states, mask.bool())


def load(card: ModelCard, files: Mapping[str, Path], device: str, size: int = SIZE) -> Colipri:
    """Load the adapter with its files; ``size`` is the side of the cube that is seen, in voxels.

    Raises:
        CheckpointError: a file is missing or damaged, or does not hold COLIPRI's network.
    """
    state = read_weights(card, files)
    network = build_network(lambda: ColipriNetwork(state), state, card, device, "model.safetensors")
    vocabulary = weights.required_file("vocab.txt", files, card)
    tokenizer = make_tokenizer(lambda: BertTokenizer(str(vocabulary), do_lower_case=True), vocabulary, card)
    width = network.image_encoder.backbone.eva.norm.weight.shape[0] // _HEADS
    turns = _position_turns(size // _PATCH, width).to(device)
    temperature = float(network.softmax_temperature)
    if not temperature > 0:
        raise weights.unusable("model.safetensors", card)
    return Colipri(
        network, device, Head(1 / temperature), TextReader(tokenizer, _LONGEST_TEXT, is_padded=False), turns, size
    )
