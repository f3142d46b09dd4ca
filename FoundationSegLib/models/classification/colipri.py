"""COLIPRI: a chest CT and sentences, compared as wholes and part by part.

Preparation, tokens and vectors are those of the package ``colipri`` 0.1.3 (MIT), which is not needed: it builds its
text tower from code of the Hub. The picture tower is Primus (arXiv:2503.01835), a vision transformer with rotary
positions in three dimensions; the text tower is a BERT. Source: arXiv:2510.15042.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
_TOKENS = 256  # computed at once; cancel waits for them
_PIXEL_TYPES = {"u2": np.int32, "u4": np.int64, "f2": np.float32}  # those that torchio or SimpleITK do not take


def prepare(volume: Volume, size: int = SIZE) -> PreparedVolume:
    """Turn an image of Hounsfield units to the right, the front and the head, bring it to 2 mm, and cut or fill it.

    Values go from -1 to 1. Whole numbers stay whole where they are resampled, as torchio has it.

    Raises:
        InputError: it is thinner than a voxel of the network.
    """
    turn = towards_ras(volume.geometry)
    resampled = _resampled(turn.turn(volume.array_kji), turn.geometry(volume.geometry).ijk_to_ras)
    scaled = np.clip(resampled, _LOWEST_HU, _HIGHEST_HU).astype(np.float32)
    scaled -= _LOWEST_HU
    scaled /= _HIGHEST_HU - _LOWEST_HU
    scaled *= 2
    scaled -= 1
    spacing_mm = volume.geometry.spacing_mm[::-1]
    lines, spans = [], []
    for axis, count in enumerate(scaled.shape):
        stored = turn.axes[axis]
        cut, fill = -(min(0, size - count) // 2), -(-max(0, size - count) // 2)
        lines.append((slice(cut, cut + size), (fill, max(0, size - count) - fill)))
        step = SPACING_MM / spacing_mm[stored]
        length = volume.array_kji.shape[stored]
        first = length / 2 + (cut - fill - count / 2) * step
        spans.append((first, first + size * step))
    padded = np.pad(scaled, [fill for _, fill in lines], constant_values=scaled.min())
    cube = padded[tuple(cut for cut, _ in lines)].transpose(2, 1, 0)
    voxels = torch.from_numpy(np.ascontiguousarray(cube))[None, None]
    return PreparedVolume(voxels, turn.spans_back(spans, volume.geometry.shape_kji))


def _resampled(array_kji: NDArray[np.generic], ijk_to_ras: NDArray[np.float64]) -> NDArray[np.generic]:
    """Resample to 2 mm along the image's own axes, about the same middle; a single slice stays one."""
    dtype = _PIXEL_TYPES.get(array_kji.dtype.str[1:], array_kji.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_kji, dtype))
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
    return sitk.GetArrayFromImage(resampler.Execute(image))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, turns: Tensor, check: Check) -> Tensor:
        q, k, v = (
            _in_parts(layer, tokens, check).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _turned(q, turns), _turned(k, turns)
        parts = []
        for part in q.split(_TOKENS, dim=2):
            check()
            attended = functional.scaled_dot_product_attention(part, k, v).transpose(1, 2).flatten(2)
            parts.append(self.proj(self.norm(attended)))
        return torch.cat(parts, dim=1)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.norm, self.fc2 = nn.LayerNorm(hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, check: Check) -> Tensor:
        return _in_parts(self._each, tokens, check)

    def _each(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.norm(functional.silu(self.fc1_g(tokens)) * self.fc1_x(tokens)))


def _in_parts(work: Callable[[Tensor], Tensor], tokens: Tensor, check: Check) -> Tensor:
    """Compute what is done to each token by itself, so many at once that the work can be stopped in between."""
    parts = []
    for part in tokens.split(_TOKENS, dim=1):
        check()
        parts.append(work(part))
    return torch.cat(parts, dim=1)


class _RotaryBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), _Mlp(width, hidden)
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor, turns: Tensor, check: Check) -> Tensor:
        tokens = tokens + self.gamma_1 * self.attn(self.norm1(tokens), turns, check)
        return tokens + self.gamma_2 * self.mlp(self.norm2(tokens), check)


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
    """Attention of the mean to all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)

    def forward(self, tokens: Tensor, is_token: Tensor | None = None) -> Tensor:
        """(B, N, D) to (B, D); ``is_token`` (B, N) is False where there is padding."""
        if is_token is None:
            mean, padding = tokens.mean(dim=1), None
        else:
            shares = is_token[..., None].to(tokens.dtype)
            mean, padding = (tokens * shares).sum(dim=1) / shares.sum(dim=1), ~is_token
        return self.attn(mean[:, None], tokens, tokens, key_padding_mask=padding)[0][:, 0]

    def of_each(self, tokens: Tensor) -> Tensor:
        """Project each token as if it alone were pooled."""
        width = tokens.shape[-1]
        values = functional.linear(tokens, self.attn.in_proj_weight[2 * width :], self.attn.in_proj_bias[2 * width :])
        return self.attn.out_proj(values)


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

    def forward(self, voxels: Tensor, turns: Tensor, progress: Progress) -> Tensor:
        """(1, 1, X, Y, Z) to the vectors of its parts before pooling, (1, parts, D); z runs the fastest."""
        tokens = self.backbone.down_projection["proj"](voxels).flatten(2).transpose(1, 2)
        blocks = self.backbone.eva.blocks
        for done, block in enumerate(blocks):
            progress.step("classify", done, len(blocks))
            tokens = block(tokens, turns, progress.check)
        tokens = self.backbone.eva.norm(tokens)
        return functional.linear(tokens, self.projector.weight.flatten(1), self.projector.bias)


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
        cube, encoder = prepare(volume, self.size), self.network.image_encoder
        tokens = encoder(to_device(cube.voxels, self.device), self.turns, progress)
        side, turn = self.size // _PATCH, towards_ras(volume.geometry)
        cells_zyx = (
            unit(_in_parts(encoder.pooler.of_each, tokens, progress.check))[0]
            .reshape(side, side, side, -1)
            .transpose(2, 1, 0, 3)
        )
        cells_kji = np.ascontiguousarray(turn.turn_back(cells_zyx))
        return VolumeVectors(unit(encoder.pooler(tokens))[0], cells_kji, cube.spans_kji)

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
