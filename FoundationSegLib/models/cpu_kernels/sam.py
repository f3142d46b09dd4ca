"""SAM's attention and mask decoder, and SAM 2's blocks and memory, on a CPU: transformers' arithmetic, in float32.

Attention: where every location of the image attends to every other, the positions' bias alone takes 0.8 GB in
transformers, and a copy of it as much again. One such attention of a ViT-B added 1.7 GB to the process, in strips of
rows 0.3 GB, with the same bits as the answer and no more time. And the work can be stopped between strips.

Decoder: a box has 7 tokens, the image has 4096 locations. So the image is never projected to keys, queries and values:
the projections are multiplied into the tokens' side first, which takes 0.4 times the work, for 7 tokens in 8 heads are
56 columns, and the projections have 128. Biases and positions go the same way. The image is kept as (locations,
channels) throughout, never transposed. On two cores a box takes 23 ms, where the modules take 57; of 327 masks of
organs on real slices none differs in a pixel. Terms that depend on positions alone are kept: 2 MB for each of the five
attentions.

SAM 2: a block of its encoder sees nothing beyond its windows, so that rows of windows pass through it one after the
other, without a product in transformers' block that nothing uses. What is remembered has 64 channels, which the
attention widens to 256: here only after the sum over locations, which takes 0.6 times the work of its two products.
"""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SamModel
from transformers.models.sam.modeling_sam import (
    SamAttention,
    SamMaskDecoder,
    SamTwoWayAttentionBlock,
    SamVisionAttention,
)

from .tiny_vit import PackedConv, from_windows, into_windows

STRIP_ROWS = 2  # 128 locations, whose bias takes 25 MB in a ViT-B; with one row it is slower, with eight too
STRIP_TOKENS = 2048  # of SAM 2's encoder: 3.2 s a slice at 1024 pixels on two Zen 3 cores, 4.0 without strips
TILE = (1024, 1024)  # 0.8 s for seven memories there, where torch's attention takes 0.95


class AttentionStrip(nn.Module):
    """Attention of some locations to all, as a module of its own so that a hook can come before it."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Attend by ``query`` (1, heads, locations, channels) and ``bias`` (1, heads, locations, all locations)."""
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class StripAttention(nn.Module):
    """Computes the same as ``module`` for a whole image, so many rows of it at a time."""

    def __init__(self, module: SamVisionAttention, strip_rows: int = STRIP_ROWS) -> None:
        super().__init__()
        self.module, self.strip, self._strip_rows = module, AttentionStrip(), strip_rows

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """Attend: (1, rows, columns, channels) to the same shape; the weights of the attention are not kept."""
        module, (_, rows, columns, _) = self.module, hidden_states.shape
        locations, heads = rows * columns, module.num_attention_heads
        qkv = module.qkv(hidden_states).reshape(1, locations, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.contiguous().unbind(0)
        of_rows = module.get_rel_pos(rows, rows, module.rel_pos_h)
        of_columns = module.get_rel_pos(columns, columns, module.rel_pos_w)
        out = torch.empty_like(query)
        for first in range(0, rows, self._strip_rows):
            last = first + self._strip_rows
            strip = slice(first * columns, last * columns)
            strip_query = query[:, :, strip]
            grid = strip_query.unflatten(2, (-1, columns))
            down = torch.einsum("bnhwc,hkc->bnhwk", grid, of_rows[first:last])
            across = torch.einsum("bnhwc,wkc->bnhwk", grid, of_columns)
            bias = (down[..., None] + across[..., None, :]).reshape(1, heads, -1, locations)
            out[:, :, strip] = self.strip(strip_query, key, value, bias)
        return module.proj(out.transpose(1, 2).reshape(1, rows, columns, -1)), None


def attend_in_strips(layers: nn.ModuleList) -> None:
    """Replace the attention of layers without windows by strips; those with windows are small as they are."""
    for layer in layers:
        if layer.window_size == 0 and layer.attn.use_rel_pos:
            layer.attn = StripAttention(layer.attn)


class HieraBlock(nn.Module):
    """A block of SAM 2's encoder, a strip of rows of windows at a time."""

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """Run the block: (1, rows, columns, channels), fewer and with more channels where it makes a new level."""
        rows, columns = hidden_states.shape[1:3]
        size = self.window_size or rows
        step = size * max(1, STRIP_TOKENS // (size * columns))
        return torch.cat([self._strip(strip, size) for strip in hidden_states.split(step, 1)], 1)

    def _strip(self, x: Tensor, size: int) -> Tensor:
        normed = self.layer_norm1(x)
        if self.dim != self.dim_out:
            x = _pooled(self.proj(normed), self.query_stride or (1, 1))
        x = x + self._attend(normed, size)
        return x + self.mlp(self.layer_norm2(x))

    def _attend(self, x: Tensor, size: int) -> Tensor:
        """Attention within windows of ``size`` by ``size``: (1, rows, columns, channels)."""
        attention, (_, rows, columns, _) = self.attn, x.shape
        qkv = attention.qkv(into_windows(x[0], size))
        query, key, value = qkv.unflatten(2, (3, attention.num_attention_heads, -1)).unbind(2)
        if stride := attention.query_stride:
            query = _pooled(query.flatten(2).unflatten(1, (size, size)), stride)
            query = query.flatten(1, 2).unflatten(2, key.shape[2:])
            size, rows, columns = size // stride[0], rows // stride[0], columns // stride[1]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        y = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return attention.proj(from_windows(y, size, rows, columns))[None]


def _pooled(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Take the largest value of every ``stride`` of rows and columns; (n, rows, columns, channels)."""
    return functional.max_pool2d(x.permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)


class MemoryAttention(nn.Module):
    """The attention of SAM 2 or EdgeTAM to what is remembered of one object.

    Its weights sum up to one, so that values can be widened after they are summed.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        position_embeddings_k: tuple[Tensor, Tensor] | None = None,
        num_k_exclude_rope: int = 0,
        rope_k_repeat: int = 0,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend: (1, 1, locations, channels); the weights of the attention are not kept."""
        queries, keys = self.q_proj(query[0, 0]) * self.scaling, self.k_proj(key[0, 0])
        _turn(queries, position_embeddings, 1)
        angles = position_embeddings_k or position_embeddings
        spatial = keys[: len(keys) - num_k_exclude_rope]
        _turn(spatial, angles, rope_k_repeat or len(spatial) // angles[0].shape[-2])
        return self.o_proj(self.v_proj(attend_in_tiles(queries, keys, value[0, 0])))[None, None], None


def _turn(x: Tensor, angles: tuple[Tensor, Tensor], groups: int) -> None:
    """Turn pairs of channels by their location's angle, in place: in EdgeTAM only of the last tokens of each group."""
    cosines, sines = (part.flatten(0, -2)[:, ::2] for part in angles)
    if len(x):
        pairs = torch.view_as_complex(x.unflatten(1, (-1, 2))).unflatten(0, (groups, -1))
        pairs[:, -len(cosines) :].mul_(torch.complex(cosines, sines))


def attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, tile: tuple[int, int] = TILE) -> Tensor:
    """Attend by (queries, c) to (keys, c) with (keys, d), float32: (queries, d); one head, its scale in the queries.

    Args:
        query, key, value: d may be another number than c, which torch's own function for a CPU does not allow.
        tile: how many queries and keys are compared at a time.
    """
    out, space = query.new_empty(len(query), value.shape[1]), query.new_empty(tile[0] * tile[1])
    for rows, target in zip(query.split(tile[0]), out.split(tile[0]), strict=True):
        logs, sums = [], []
        for keys, values in zip(key.split(tile[1]), value.split(tile[1]), strict=True):
            scores = space[: len(rows) * len(keys)].view(len(rows), -1)
            highest = torch.mm(rows, keys.t(), out=scores).amax(1)
            weights = torch.softmax(scores, 1, out=scores)
            # The largest weight is one by the sum of exponentials, by which this tile weighs among the others.
            logs.append(highest - weights.amax(1).log_())
            sums.append(weights @ values)
        shares = torch.stack(logs, 1).softmax(1)[..., None]
        torch.sum(torch.stack(sums, 1).mul_(shares), 1, out=target)
    return out


def quicken(network: nn.Module) -> None:
    """Let SAM 2, MedSAM2 or EdgeTAM do on a CPU what takes it longest as above; weights keep their names."""
    backbone = network.vision_encoder.backbone
    if hasattr(backbone, "blocks"):
        positions = backbone._get_pos_embed(tuple(network.backbone_feature_sizes[0]))
        backbone._get_pos_embed = lambda _size: positions  # the same for every slice
        for block in backbone.blocks:
            block.__class__ = HieraBlock
    for layer in network.memory_attention.layers:
        layer.cross_attn_image.__class__ = MemoryAttention


class _FromImage:
    """Tokens attending to the image.

    Args:
        module: the attention that it stands for.
        positions: (locations, channels), added to the image where it is compared to the tokens.
        offset: (channels,), added to the image everywhere.
    """

    def __init__(self, module: SamAttention, positions: Tensor, offset: Tensor) -> None:
        self._query, self._out, self._heads = module.q_proj, module.out_proj, module.num_attention_heads
        self._scale = module.scaling
        key, value = module.k_proj.weight, module.v_proj.weight
        # The key's bias and the offset would add the same to all locations, which the softmax ignores.
        self._keys = key.unflatten(0, (self._heads, -1)).contiguous()
        self._position_keys = _by_head(functional.linear(positions, key), self._heads).transpose(1, 2).contiguous()
        self._values = value.unflatten(0, (self._heads, -1)).transpose(1, 2).contiguous()
        self._value_bias = (module.v_proj.bias + value @ offset).view(self._heads, 1, -1)

    def __call__(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Compute the sum to add to the tokens, (tokens, channels); ``image`` is (locations, channels)."""
        query = _by_head(self._query(tokens) * self._scale, self._heads)
        scores = query @ self._position_keys
        rows = scores.view(-1, len(image)).addmm_((query @ self._keys).flatten(0, 1), image.t())
        attended = (rows.softmax(1) @ image).view(self._heads, len(tokens), -1)
        return self._out(torch.baddbmm(self._value_bias, attended, self._values).transpose(0, 1).flatten(1))


class _ToImage:
    """The image attending to the tokens; arguments as of :class:`_FromImage`."""

    def __init__(self, module: SamAttention, positions: Tensor, offset: Tensor) -> None:
        self._key, self._value, self._heads = module.k_proj, module.v_proj, module.num_attention_heads
        query, out = module.q_proj, module.out_proj
        self._queries = query.weight.unflatten(0, (self._heads, -1)) * module.scaling
        at_locations = functional.linear(positions + offset, query.weight, query.bias) * module.scaling
        self._position_queries = _by_head(at_locations, self._heads).transpose(1, 2).contiguous()
        self._outs = out.weight.t().unflatten(0, (self._heads, -1)).contiguous()
        # Every head's weights sum up to one, so a part of all of its values is added once for every head.
        self._bias = (out.bias + offset) / self._heads

    def __call__(self, keys: Tensor, values: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute two factors of the sum to add: (locations, heads * tokens) and (heads * tokens, channels)."""
        key = _by_head(self._key(keys), self._heads)
        scores = key @ self._position_queries
        scores.view(-1, len(image)).addmm_((key @ self._queries).flatten(0, 1), image.t())
        value = torch.baddbmm(self._bias, _by_head(self._value(values), self._heads), self._outs)
        return scores.softmax(1).flatten(0, 1).t(), value.flatten(0, 1)


class _SelfAttention:
    """Tokens attending to each other."""

    def __init__(self, module: SamAttention) -> None:
        self._heads, self._out, self._value = module.num_attention_heads, module.out_proj, module.v_proj
        self._weight = torch.cat([module.q_proj.weight, module.k_proj.weight])
        self._bias = torch.cat([module.q_proj.bias, module.k_proj.bias])

    def __call__(self, tokens: Tensor, values: Tensor) -> Tensor:
        """Attend with queries and keys made of ``tokens``; (tokens, channels)."""
        both = functional.linear(tokens, self._weight, self._bias).chunk(2, dim=1)
        query, key, value = (_by_head(x, self._heads) for x in (*both, self._value(values)))
        return self._out(functional.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1))


class _Layer:
    """One layer of the two-way transformer."""

    def __init__(self, module: SamTwoWayAttentionBlock, positions: Tensor, offset: Tensor) -> None:
        self._module = module
        self._among = _SelfAttention(module.self_attn)
        self._from_image = _FromImage(module.cross_attn_token_to_image, positions, offset)
        self._to_image = _ToImage(module.cross_attn_image_to_token, positions, offset)

    def __call__(self, tokens: Tensor, prompt: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layer; returns tokens and image. ``prompt`` are the tokens before the first layer."""
        module = self._module
        if module.skip_first_layer_pe:
            tokens = self._among(tokens, tokens)
        else:
            tokens = tokens + self._among(tokens + prompt, tokens)
        tokens = module.layer_norm1(tokens)
        tokens = module.layer_norm2(tokens + self._from_image(tokens + prompt, image))
        tokens = module.layer_norm3(tokens + module.mlp(tokens))
        weights, values = self._to_image(tokens + prompt, tokens, image)
        return tokens, module.layer_norm4(torch.addmm(image, weights, values))


class SamCpuDecoder:
    """SAM's mask decoder for one prompt: one mask for a plain prompt, or three for an ambiguous one."""

    def __init__(self, model: SamModel) -> None:
        prompts, decoder = model.prompt_encoder, model.mask_decoder
        self._tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        with torch.no_grad():
            positions = model.get_image_wide_positional_embeddings()[0].flatten(1).t().contiguous()
            self._no_mask = prompts.no_mask_embed.weight[0]
            nothing = torch.zeros_like(self._no_mask)
            transformer = decoder.transformer
            # The embedding of "no mask" belongs to the image that the first layer sees.
            offsets = [self._no_mask, *[nothing] * (len(transformer.layers) - 1)]
            self._layers = [_Layer(*parts) for parts in zip(transformer.layers, repeat(positions), offsets)]
            self._last = _FromImage(transformer.final_attn_token_to_image, positions, nothing)
        self._last_norm = transformer.layer_norm_final_attn
        self._hypers, self._quality = decoder.output_hypernetworks_mlps, decoder.iou_prediction_head
        self._enlarge = _Enlarging(decoder, len(positions))

    def __call__(
        self, features: Tensor, prompt: Tensor, mask: Tensor | None = None, several: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Decode any prompt to logits, (masks, size, size), and predicted IoUs, (masks,).

        Args:
            features: (1, channels, size / 4, size / 4), channels last in memory.
            prompt: (tokens, channels), points and boxes through the model's prompt encoder.
            mask: (1, channels, size / 4, size / 4), a mask prompt through it; None without one.
            several: True for the masks of an ambiguous prompt instead of the one.
        """
        image = features[0].permute(1, 2, 0).flatten(0, 1)
        if mask is not None:
            # The first layer adds "no mask" of its own.
            image = image + (mask[0].permute(1, 2, 0).flatten(0, 1) - self._no_mask)
        prompt = torch.cat([self._tokens, prompt])
        tokens = prompt
        for layer in self._layers:
            tokens, image = layer(tokens, prompt, image)
        numbers = range(1, len(self._hypers)) if several else range(1)
        # Of the tokens after this, only those of the quality and of the masks are used.
        tokens, prompt = tokens[: numbers.stop + 1], prompt[: numbers.stop + 1]
        quality, *masks = self._last_norm(tokens + self._last(tokens + prompt, image))
        vectors = [self._hypers[n](masks[n]) for n in numbers]
        return self._enlarge(image, vectors), self._quality(quality)[numbers.start : numbers.stop]


class _Enlarging:
    """Enlarges the image four times, and multiplies it with the vectors of masks."""

    def __init__(self, decoder: SamMaskDecoder, locations: int) -> None:
        self._first = PackedConv(_as_linear(decoder.upscale_conv1), (1, locations))
        # Made for channels last, which the module's own setting would look for in the second axis.
        norm = decoder.upscale_layer_norm
        self._norm = nn.LayerNorm(norm.normalized_shape, norm.eps)
        self._norm.load_state_dict(norm.state_dict())
        self._second = PackedConv(_as_linear(decoder.upscale_conv2), (4, locations), gelu=True)
        self._channels = decoder.upscale_conv2.out_channels

    def __call__(self, image: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        """Turn (locations, channels) and a (fewer channels,) for every mask into (masks, 4 * rows, 4 * columns)."""
        side = math.isqrt(len(image))
        once = functional.gelu(self._norm(self._first(image[None]).view(4, len(image), -1)))
        twice = self._second(once).view(-1, self._channels)
        products = torch.stack([twice @ vector for vector in vectors])
        # (mask, row, column, then row and column within the location of the first enlarging, and of the second)
        products = products.view(-1, side, side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return products.reshape(-1, 4 * side, 4 * side)


def _as_linear(conv: nn.ConvTranspose2d) -> nn.Linear:
    """Convert a transposed convolution, its kernel as large as its stride: (n, in) to (n, rows * columns * out)."""
    linear = nn.Linear(conv.in_channels, conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1])
    linear.requires_grad_(False)
    linear.weight.copy_(conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 2))
    linear.bias.copy_(conv.bias.detach().repeat(conv.kernel_size[0] * conv.kernel_size[1]))
    return linear


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(n, heads * c) as (heads, n, c)."""
    return x.unflatten(1, (heads, -1)).transpose(0, 1)
