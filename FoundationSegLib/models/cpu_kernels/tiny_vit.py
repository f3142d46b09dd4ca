"""The encoder of LiteMedSAM and MobileSAM on a CPU: the modules' arithmetic, float32, a strip of rows at a time.

Run layer by layer, the network waits for memory: one activation of the first stage takes 64 MB. In strips the work in
between stays in the processor's caches.

Why not bfloat16, with which an encoding takes half as long: it moves the embedding by 4 %, and one 3-D box around a
real brain tumour then finds 0.03 less of it in Dice, or 0.09 with some layers in float32. No layer alone can have it
either: the embedding may move by 0.1 %, and the least sensitive ones, attention in the second stage, move it by 0.14.
Other programs round alike: Resources/Documentation/evidence.md has what was measured.
"""

from collections.abc import Callable

import torch
from timm.models.tiny_vit import MBConv, PatchMerging, TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional

from ..protocols import Check, unstoppable


class PackedConv:
    """A convolution or a linear layer on (rows, columns, channels) tensors, float32, by oneDNN's fused convolutions.

    torch does not offer these publicly: :func:`fast_path_available` tells whether they are there.

    Args:
        layer: the source of weight and bias.
        shape: rows and columns of most inputs; oneDNN lays the weights out for them.
        gelu: True where a GELU follows.
        halo: True where the rows above and below come with the tensor, so that only columns are padded.
    """

    def __init__(
        self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, int], *, gelu: bool = False, halo: bool = False
    ) -> None:
        weight = layer.weight.detach()
        conv = layer if isinstance(layer, nn.Conv2d) else nn.Conv2d(1, 1, 1)
        rows, columns = conv.padding
        self._geometry = ([0 if halo else rows, columns], list(conv.stride), [1, 1], conv.groups)
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._after = ("gelu", [], "none") if gelu else ("none", [], "")
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(memory_format=torch.channels_last),
            *self._geometry,
            [1, weight.shape[1] * conv.groups, *shape],
        )
        self.channels = weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layer: (rows, columns, channels)."""
        y = torch.ops.mkldnn._convolution_pointwise(
            as_image(x), self._weight, self._bias, *self._geometry, *self._after
        )
        return y[0].permute(1, 2, 0)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the layer's output for x to ``total``, (rows, columns, channels), in place; never a GELU."""
        torch.ops.mkldnn._convolution_pointwise_.binary(
            as_image(total), as_image(x), self._weight, self._bias, *self._geometry, "add", 1.0, None, [], None
        )
        return total


def as_image(x: Tensor) -> Tensor:
    """(rows, columns, channels) as (1, channels, rows, columns), the same memory."""
    return x.permute(2, 0, 1)[None]


def fast_path_available(device: str) -> bool:
    """True where the kernels of this folder are faster than the modules they stand for, and right.

    That takes a CPU, and a build of torch whose fused convolutions of oneDNN exist and compute what they should.
    """
    if device != "cpu":
        return False
    layer = nn.Conv2d(2, 2, 1).requires_grad_(False)
    x = torch.linspace(-1, 1, 8).reshape(2, 2, 2)
    expected = layer(as_image(x))[0].permute(1, 2, 0)
    try:
        fused = PackedConv(layer, (2, 2), gelu=True)
        with torch.inference_mode():
            after, added = fused(x), fused.add_to(x.clone(), x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(after, functional.gelu(expected), atol=1e-5) and torch.allclose(
        added, x + expected, atol=1e-5
    )


STRIP_PIXELS = 8192  # pixels or tokens in a strip: 377 ms a slice; 394 ms with twice as many, 424 with half


def _strips(rows: int, columns: int, pixels: int, multiple: int = 1) -> list[tuple[int, int]]:
    """First and last (excluded) row of every strip; all but the last hold a multiple of ``multiple`` rows."""
    step = max(1, pixels // (columns * multiple)) * multiple
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


def _with_neighbours(rows_of: Callable[[int, int], Tensor], first: int, last: int, height: int) -> Tensor:
    """Rows ``first`` to ``last`` (excluded) and one more on either side, zeros outside the image."""
    low, high = max(first - 1, 0), min(last + 1, height)
    rows = rows_of(low, high)
    missing = (low - first + 1, last + 1 - high)
    return functional.pad(rows, (0, 0, 0, 0, *missing)) if any(missing) else rows


def into_windows(x: Tensor, size: int) -> Tensor:
    """(rows, columns, channels) as (windows, size * size, channels), with zeros beyond the image."""
    down, across = (-(-length // size) for length in x.shape[:2])
    x = functional.pad(x, (0, 0, 0, across * size - x.shape[1], 0, down * size - x.shape[0]))
    return x.view(down, size, across, size, -1).transpose(1, 2).reshape(down * across, size * size, -1)


def from_windows(x: Tensor, size: int, rows: int, columns: int) -> Tensor:
    """Undo :func:`into_windows`: (windows, size * size, ...) as (rows, columns, channels)."""
    down, across = -(-rows // size), -(-columns // size)
    x = x.reshape(down, across, size, size, -1).transpose(1, 2).reshape(down * size, across * size, -1)
    return x[:rows, :columns]


class _Expanding:
    """MBConv or PatchMerging: 1x1, GELU, depthwise 3x3, GELU, 1x1."""

    def __init__(self, module: MBConv | PatchMerging, columns: int, strip_pixels: int) -> None:
        self.stride, self._strip_pixels = module.conv2.stride[0], strip_pixels
        shape = (max(1, strip_pixels // columns), columns)
        self.expand = PackedConv(module.conv1, shape, gelu=True)
        self._depthwise = PackedConv(module.conv2, (shape[0] + 2, columns), gelu=True, halo=True)
        self._project = PackedConv(module.conv3, (shape[0], columns // self.stride))

    def merge(self, x: Tensor) -> Tensor:
        """Merge patches: (rows, columns, channels) to (rows / stride, columns / stride, more channels)."""
        rows, columns = x.shape[0], x.shape[1]
        out = x.new_empty(rows // self.stride, columns // self.stride, self._project.channels)
        for first, last in _strips(rows, columns, self._strip_pixels, self.stride):
            hidden = _with_neighbours(lambda low, high: self.expand(x[low:high]), first, last, rows)
            out[first // self.stride : last // self.stride] = self._project(self._depthwise(hidden))
        return out

    def convolve(self, x: Tensor, expanded: Callable[[int, int], Tensor], check: Check) -> Tensor:
        """Convolve as MBConv; the shape of x stays. ``expanded`` gives x after the first GELU, for a range of rows."""
        out = torch.empty_like(x)
        for first, last in _strips(x.shape[0], x.shape[1], self._strip_pixels):
            check()
            hidden = _with_neighbours(expanded, first, last, x.shape[0])
            total = self._project.add_to(out[first:last].copy_(x[first:last]), self._depthwise(hidden))
            torch.ops.aten.gelu_(total)
        return out


class _Block:
    """A TinyViT block: attention within windows, depthwise 3x3, two linear layers."""

    def __init__(self, module: TinyVitBlock, columns: int, strip_pixels: int) -> None:
        attention, shape, self._strip_pixels = module.attn, (max(1, strip_pixels // columns), columns), strip_pixels
        self._window, self._heads = module.window_size, module.num_heads
        self._norm, self._mlp_norm = attention.norm, module.mlp.norm
        self._bias = attention.attention_biases.detach()[:, attention.attention_bias_idxs]
        self._qkv = PackedConv(attention.qkv, shape)
        self._project = PackedConv(attention.proj, shape)
        self._depthwise = PackedConv(module.local_conv, (columns, columns))
        self._widen = PackedConv(module.mlp.fc1, shape, gelu=True)
        self._narrow = PackedConv(module.mlp.fc2, shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the block; x, (rows, columns, channels), is overwritten."""
        rows, columns = x.shape[:2]
        for first, last in _strips(rows, columns, self._strip_pixels, self._window):
            self._project.add_to(x[first:last], self._attend(x[first:last]))
        x = self._depthwise(x)
        for first, last in _strips(rows, columns, self._strip_pixels):
            self._narrow.add_to(x[first:last], self._widen(self._mlp_norm(x[first:last])))
        return x

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within the windows of whole rows of windows, before the projection; the shape of x."""
        windows = into_windows(x, self._window)
        qkv = self._qkv(self._norm(windows)).view(*windows.shape[:2], self._heads, 3, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(3))
        # A bias without the batch's axis would send torch to its plain form, which takes three times as long.
        bias = self._bias.expand(len(windows), -1, -1, -1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
        return from_windows(y, self._window, *x.shape[:2]).contiguous()


class StripEncoder:
    """TinyViT with SAM's neck for the CPU.

    Args:
        encoder: its modules ``patch_embed``, ``stages`` and ``neck``, with folded batch norms.
        size: the side of the image, in pixels.
        strip_pixels: pixels or tokens in a strip.
    """

    def __init__(self, encoder: nn.Module, size: int, strip_pixels: int = STRIP_PIXELS) -> None:
        embed, (first, *stages) = encoder.patch_embed, encoder.stages
        inner = size // embed.conv1.stride[0]
        self._embed = (PackedConv(embed.conv1, (1, size), gelu=True), PackedConv(embed.conv2, (1, inner)))
        size = inner // embed.conv2.stride[0]
        self._convs = [_Expanding(module, size, strip_pixels) for module in first.blocks]
        self._stages: list[tuple[_Expanding, list[_Block]]] = []
        columns = size
        for stage in stages:
            merge = _Expanding(stage.downsample, columns, strip_pixels)
            columns //= merge.stride
            self._stages.append((merge, [_Block(block, columns, strip_pixels) for block in stage.blocks]))
        reduce, self._norm, mix, self._last_norm = encoder.neck
        self._reduce, self._mix = (PackedConv(conv, (columns, columns)) for conv in (reduce, mix))

    def grey(self, levels: Tensor, pixels: Tensor, check: Check = unstoppable) -> Tensor:
        """Embed a grey image, where patches are single pixels: (1, 256, size / 4, size / 4).

        The layers before the first 3x3 convolution see single pixels: they run once for every grey level, whose result
        is then looked up.

        Args:
            levels: (levels,) float32, the value of each grey level, 0..1.
            pixels: (size, size) int32, the level of every pixel.
            check: called every few milliseconds; an exception of it ends the work.
        """
        embedded = self._embed_pixels(levels[None, :, None].expand(1, -1, 3).contiguous())
        expanded = self._convs[0].expand(embedded)[0]

        def rows_of(table: Tensor, low: int, high: int) -> Tensor:
            return table.index_select(0, pixels[low:high].flatten()).view(high - low, pixels.shape[1], -1)

        x = rows_of(embedded[0], 0, len(pixels))
        return self._encode(x, lambda low, high: rows_of(expanded, low, high), check)

    def colour(self, pixels: Tensor, check: Check = unstoppable) -> Tensor:
        """Embed an image (size, size, 3), float32, 0..1; ``check`` as for :meth:`grey`."""
        x = self._embed_pixels(pixels)
        return self._encode(x, lambda low, high: self._convs[0].expand(x[low:high]), check)

    def _embed_pixels(self, x: Tensor) -> Tensor:
        for conv in self._embed:
            x = conv(x)
        return x

    def _encode(self, x: Tensor, expanded: Callable[[int, int], Tensor], check: Check) -> Tensor:
        first, *others = self._convs
        x = first.convolve(x, expanded, check)
        for conv in others:
            x = conv.convolve(x, lambda low, high, x=x, conv=conv: conv.expand(x[low:high]), check)
        for merge, blocks in self._stages:
            check()
            x = merge.merge(x)
            for block in blocks:
                check()
                x = block(x)
        return self._through_neck(x)

    def _through_neck(self, x: Tensor) -> Tensor:
        x = self._norm(as_image(self._reduce(x)))[0].permute(1, 2, 0)
        return self._last_norm(as_image(self._mix(x)))
