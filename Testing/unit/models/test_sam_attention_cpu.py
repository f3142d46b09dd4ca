"""Attention in strips against transformers' own, with random weights."""

import copy

import pytest
import torch
from torch import nn
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from FoundationSegLib.models.cpu_kernels.sam import AttentionStrip, StripAttention, attend_in_strips


def layer_of(window: int, **changes) -> SamVisionLayer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 3, "image_size": 176, "mlp_dim": 64}
    config = SamVisionConfig(**(sizes | changes))
    config._attn_implementation = "sdpa"
    layer = SamVisionLayer(config, window).eval().requires_grad_(False)
    for value in layer.parameters():
        value.normal_(0, 0.3)
    return layer


@pytest.mark.parametrize("rows", [1, 2, 3, 11, 20])
def test_strips_of_every_size_give_the_same(rows, monkeypatch):
    monkeypatch.setattr("FoundationSegLib.models.cpu_kernels.sam.STRIP_ROWS", rows)
    attention, image = layer_of(0).attn, torch.randn(1, 11, 11, 48)
    with torch.inference_mode():
        expected, _ = attention(image)
        got, weights = StripAttention(attention)(image)
    assert expected.std() > 0.3, "large enough for the tolerance to mean something"
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert weights is None


def test_a_hook_comes_before_every_strip():
    attention, calls = StripAttention(layer_of(0).attn), []
    attention.strip.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        attention(torch.randn(1, 11, 11, 48))
    assert len(calls) == 6


def test_only_layers_without_windows_are_changed():
    layers = nn.ModuleList([layer_of(7), layer_of(0), layer_of(0, use_rel_pos=False)])
    image, before = torch.randn(1, 11, 11, 48), copy.deepcopy(layers)
    attend_in_strips(layers)
    assert [any(isinstance(m, AttentionStrip) for m in layer.modules()) for layer in layers] == [False, True, False]
    with torch.inference_mode():
        for one, other in zip(layers, before, strict=True):
            torch.testing.assert_close(one(image), other(image), rtol=0, atol=1e-4)
