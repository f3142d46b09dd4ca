"""SAM's mask decoder on a CPU: the arithmetic of transformers' modules, float32, for one prompt.

A box has 7 tokens, the image has 4096 places. So the image is never projected to keys, queries and values: what
would project it is multiplied into the tokens' side first, which takes 0.4 times the work, for 7 tokens in 8 heads are
56 columns, and the projections have 128. Biases and positions go the same way. The image is kept as (places, channels)
throughout, never transposed. On two cores a box takes 23 ms, where the modules take 57; of 327 masks of organs on real
slices none differs in a pixel. What depends on positions alone is kept: 2 MB for each of the five attentions.
"""

import math
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamAttention, SamMaskDecoder, SamTwoWayAttentionBlock

from .tiny_vit_strips import PackedConv


class _FromImage:
    """Tokens attending to the image.

    Args:
        module: the attention that it stands for.
        positions: (places, channels), added to the image where it is compared to the tokens.
        offset: (channels,), what is to be added to the image everywhere.
    """

    def __init__(self, module: SamAttention, positions: Tensor, offset: Tensor) -> None:
        self._query, self._out, self._heads = module.q_proj, module.out_proj, module.num_attention_heads
        self._scale = module.scaling
        key, value = module.k_proj.weight, module.v_proj.weight
        # The key's bias and the offset would add the same to all places: the softmax takes no notice.
        self._keys = key.unflatten(0, (self._heads, -1)).contiguous()
        self._position_keys = _by_head(functional.linear(positions, key), self._heads).transpose(1, 2).contiguous()
        self._values = value.unflatten(0, (self._heads, -1)).transpose(1, 2).contiguous()
        self._value_bias = (module.v_proj.bias + value @ offset).view(self._heads, 1, -1)

    def __call__(self, tokens: Tensor, image: Tensor) -> Tensor:
        """What is to be added to the tokens, (tokens, channels); ``image`` is (places, channels)."""
        query = _by_head(self._query(tokens) * self._scale, self._heads)
        scores = query @ self._position_keys
        rows = scores.view(-1, len(image)).addmm_((query @ self._keys).flatten(0, 1), image.t())
        seen = (rows.softmax(1) @ image).view(self._heads, len(tokens), -1)
        return self._out(torch.baddbmm(self._value_bias, seen, self._values).transpose(0, 1).flatten(1))


class _ToImage:
    """The image attending to the tokens; arguments as of :class:`_FromImage`."""

    def __init__(self, module: SamAttention, positions: Tensor, offset: Tensor) -> None:
        self._key, self._value, self._heads = module.k_proj, module.v_proj, module.num_attention_heads
        query, out = module.q_proj, module.out_proj
        self._queries = query.weight.unflatten(0, (self._heads, -1)) * module.scaling
        at_places = functional.linear(positions + offset, query.weight, query.bias) * module.scaling
        self._position_queries = _by_head(at_places, self._heads).transpose(1, 2).contiguous()
        self._outs = out.weight.t().unflatten(0, (self._heads, -1)).contiguous()
        # Every head's weights sum up to one, so what is in all of its values is added once for every head.
        self._bias = (out.bias + offset) / self._heads

    def __call__(self, keys: Tensor, values: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two factors: (places, heads * tokens) and (heads * tokens, channels); their product is to be added."""
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
        """(tokens, channels), what the attention gives where queries and keys are made of ``tokens``."""
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
        """Tokens and image after the layer; ``prompt`` is what the tokens were at first."""
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
    """What ``model`` says to one prompt: its mask for a plain one, or its three for an ambiguous one."""

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
        """The logits, (masks, size, size), and predicted IoUs, (masks,), for any prompt.

        Args:
            features: (1, channels, size / 4, size / 4), channels last in memory.
            prompt: (tokens, channels), what the model's prompt encoder makes of points and boxes.
            mask: (1, channels, size / 4, size / 4), what it makes of a mask prompt; None without one.
            several: whether to give the masks for an ambiguous prompt instead of the one.
        """
        image = features[0].permute(1, 2, 0).flatten(0, 1)
        if mask is not None:
            # The first layer adds "no mask" of its own.
            image = image + (mask[0].permute(1, 2, 0).flatten(0, 1) - self._no_mask)
        prompt = torch.cat([self._tokens, prompt])
        tokens = prompt
        for layer in self._layers:
            tokens, image = layer(tokens, prompt, image)
        wanted = range(1, len(self._hypers)) if several else range(1)
        # Of the tokens after this, only those of the quality and of the masks are asked for.
        asked = wanted.stop + 1
        tokens, prompt = tokens[:asked], prompt[:asked]
        quality, *masks = self._last_norm(tokens + self._last(tokens + prompt, image))
        vectors = [self._hypers[n](masks[n]) for n in wanted]
        return self._enlarge(image, vectors), self._quality(quality)[wanted.start : wanted.stop]


class _Enlarging:
    """The image four times as large, and its products with masks' vectors."""

    def __init__(self, decoder: SamMaskDecoder, places: int) -> None:
        self._first = PackedConv(_as_linear(decoder.upscale_conv1), (1, places))
        # Made for channels last, which the module's own setting would look for in the second axis.
        norm = decoder.upscale_layer_norm
        self._norm = nn.LayerNorm(norm.normalized_shape, norm.eps)
        self._norm.load_state_dict(norm.state_dict())
        self._second = PackedConv(_as_linear(decoder.upscale_conv2), (4, places), gelu=True)
        self._channels = decoder.upscale_conv2.out_channels

    def __call__(self, image: Tensor, vectors: Sequence[Tensor]) -> Tensor:
        """(places, channels) and a (fewer channels,) for every mask to (masks, 4 * rows, 4 * columns)."""
        side = math.isqrt(len(image))
        once = functional.gelu(self._norm(self._first(image[None]).view(4, len(image), -1)))
        twice = self._second(once).view(-1, self._channels)
        products = torch.stack([twice @ vector for vector in vectors])
        # (mask, row, column, then row and column within the place of the first enlarging, and of the second)
        products = products.view(-1, side, side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return products.reshape(-1, 4 * side, 4 * side)


def _as_linear(conv: nn.ConvTranspose2d) -> nn.Linear:
    """A transposed convolution with a kernel as large as its stride: (n, in) to (n, rows * columns * out)."""
    linear = nn.Linear(conv.in_channels, conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1])
    linear.requires_grad_(False)
    linear.weight.copy_(conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 2))
    linear.bias.copy_(conv.bias.detach().repeat(conv.kernel_size[0] * conv.kernel_size[1]))
    return linear


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(n, heads * c) as (heads, n, c)."""
    return x.unflatten(1, (heads, -1)).transpose(0, 1)
