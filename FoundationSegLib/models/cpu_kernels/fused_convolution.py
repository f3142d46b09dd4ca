"""Convolutions and linear layers on a CPU by oneDNN, fused with the activation or the sum that follows; float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional


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
