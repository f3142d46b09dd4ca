"""LiteMedSAM and the kernels for the CPU against the plain modules of timm and transformers, with random weights."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from FoundationSegLib.errors import Cancelled
from FoundationSegLib.models.cpu_kernels.sam import (
    AttentionStrip,
    SamCpuDecoder,
    StripAttention,
    attend_in_strips,
    attend_in_tiles,
    quicken,
)
from FoundationSegLib.models.cpu_kernels.tiny_vit import StripEncoder, fast_path_available
from FoundationSegLib.models.protocols import SlicePrompt
from FoundationSegLib.models.segmentation.lite_medsam import (
    LiteMedSam,
    TinyVitEncoder,
    box_to_network,
    build_decoder,
    fold_batch_norms,
    prepare,
    prepare_grey,
)
from Testing.models.small_sam2 import small_edgetam, small_network

needs_fused = pytest.mark.skipif(not fast_path_available("cpu"), reason="torch without oneDNN's fused convolutions")
TOLERANCE = 2e-4  # the embedding has a standard deviation of 1; other orders of summing give 2e-5


@pytest.fixture(scope="module")
def modules() -> TinyVitEncoder:
    torch.manual_seed(0)
    encoder = TinyVitEncoder().eval().requires_grad_(False)
    for name, value in encoder.state_dict().items():
        # Fresh batch norms and biases would hide what they do.
        if name.endswith(("bn.weight", "bn.running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "attention_biases", "bn.running_mean")):
            value.normal_(0, 0.2)
    fold_batch_norms(encoder)
    return encoder


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(3, 250, (150, 201), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(modules: TinyVitEncoder, image: np.ndarray) -> Tensor:
    return modules(torch.from_numpy(prepare(image)))


@needs_fused
@pytest.mark.parametrize("pixels", [1, 1000, 5000, 8192, 10**6])
def test_strips_of_every_size_give_the_modules_embedding(modules, image, expected, pixels, full):
    if pixels in (1, 5000) and not full:
        pytest.skip("a few sizes are enough: run with --full")
    with torch.inference_mode():
        answer = StripEncoder(modules, 256, pixels).grey(*map(torch.from_numpy, prepare_grey(image)))
    assert answer.shape == (1, 256, 64, 64)
    torch.testing.assert_close(answer, expected, rtol=0, atol=TOLERANCE)


@needs_fused
def test_colour_is_that_of_the_modules(modules):
    image = np.random.default_rng(1).integers(0, 256, (256, 180, 3), dtype=np.uint8)
    pixels = torch.from_numpy(prepare(image))
    with torch.inference_mode():
        answer = StripEncoder(modules, 256).colour(pixels[0].permute(1, 2, 0).contiguous())
    torch.testing.assert_close(answer, modules(pixels), rtol=0, atol=TOLERANCE)


@needs_fused
def test_an_encoding_can_be_stopped_in_its_midst_and_spoils_nothing(modules, image):
    encoder, calls = StripEncoder(modules, 256), []
    grey = [torch.from_numpy(part) for part in prepare_grey(image)]

    def stop_at_the_tenth():
        calls.append(None)
        if len(calls) == 10:
            raise Cancelled

    with torch.inference_mode():
        first = encoder.grey(*grey, lambda: calls.append(None))
        assert len(calls) > 20, "often enough for a request not to notice"
        calls.clear()
        with pytest.raises(Cancelled):
            encoder.grey(*grey, stop_at_the_tenth)
        assert torch.equal(first, encoder.grey(*grey))


@pytest.mark.parametrize("shape", [(150, 201), (256, 256), (70, 1000)])
def test_grey_levels_mean_what_the_plain_preparation_gives(shape):
    image = np.random.default_rng(2).integers(20, 200, shape, dtype=np.uint8)
    levels, pixels = prepare_grey(image)
    np.testing.assert_array_equal(levels[pixels], prepare(image)[0, 1])


def test_a_uniform_slice_is_black():
    levels, pixels = prepare_grey(np.full((9, 9), 77, np.uint8))
    assert not levels[pixels].any()


def test_a_torch_without_the_fused_convolutions_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not fast_path_available("cpu")


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
def test_strips_of_every_size_give_the_same(rows):
    attention, image = layer_of(0).attn, torch.randn(1, 11, 11, 48)
    with torch.inference_mode():
        expected, _ = attention(image)
        got, weights = StripAttention(attention, rows)(image)
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


BOXES = [(20.0, 30.0, 90.0, 70.0), (0.0, 0.0, 256.0, 256.0), (100.0, 3.0, 101.0, 4.0), (250.0, 200.0, 7.0, 10.0)]


@pytest.fixture(scope="module")
def model() -> SamModel:
    torch.manual_seed(0)
    model = build_decoder().eval().requires_grad_(False)
    for name, value in model.named_parameters():
        # Fresh weights hide most terms: biases are zeros, and attention is next to uniform.
        if "norm" in name and name.endswith("weight"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            value.normal_(0, 0.3)
        elif "_proj" in name or "upscale" in name:
            value.normal_(0, 1.5 * value[0].numel() ** -0.5)
        else:
            value.normal_(0, 0.3 if "embed" in name else value[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="module")
def decoder(model: SamModel) -> SamCpuDecoder:
    return SamCpuDecoder(model)


def random_features(seed: int, scale: float = 1.0) -> Tensor:
    features = scale * torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(seed))
    return features.contiguous(memory_format=torch.channels_last)


def tokens(model: SamModel, box: Tensor) -> Tensor:
    """What the prompt encoder makes of one box."""
    sparse, _ = model.prompt_encoder(
        input_points=None, input_labels=None, input_boxes=box[None, None], input_masks=None
    )
    return sparse[0, 0]


@needs_fused
@pytest.mark.parametrize(("seed", "box"), enumerate(BOXES))
def test_logits_and_scores_are_those_of_transformers(model, decoder, box, seed):
    features = random_features(seed, scale=1 + seed)
    with torch.inference_mode():
        box = torch.tensor(box)
        expected = model(image_embeddings=features.contiguous(), input_boxes=box[None, None], multimask_output=False)
        logits, score = decoder(features, tokens(model, box))
    assert (logits.shape, score.shape) == ((1, 256, 256), (1,))
    assert expected.pred_masks.std() > 0.3, "large enough for the tolerance to mean something"
    torch.testing.assert_close(logits, expected.pred_masks[0, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(score, expected.iou_scores[0, 0], rtol=0, atol=1e-5)


@needs_fused
def test_every_layout_of_the_features_gives_the_same(model, decoder):
    features = random_features(5)
    with torch.inference_mode():
        box = tokens(model, torch.tensor(BOXES[0]))
        first, other = decoder(features, box), decoder(features.contiguous(), box)
    torch.testing.assert_close(first, other, rtol=0, atol=1e-5)


@needs_fused
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["point", "points", "box and point"])
def test_every_prompt_is_what_transformers_says(model, decoder, kind, masked, several):
    features, places = random_features(7), torch.tensor([[[[20.0, 30.0], [200.0, 90.0], [77.5, 3.25]]]])
    count = 1 if kind.endswith("point") else 3
    points, labels = places[:, :, :count], torch.tensor([[[1, 0, 1]]])[:, :, :count]
    boxes = torch.tensor([[BOXES[0]]]) if "box" in kind else None
    masks = 5 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(8)) if masked else None
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(
            input_points=points, input_labels=labels, input_boxes=boxes, input_masks=masks
        )
        said = model(
            image_embeddings=features.contiguous(),
            input_points=points,
            input_labels=labels,
            input_boxes=boxes,
            input_masks=masks,
            multimask_output=several,
        )
        logits, scores = decoder(features, sparse[0, 0], dense if masked else None, several)
    assert (logits.shape, scores.shape) == ((3 if several else 1, 256, 256), (3 if several else 1,))
    torch.testing.assert_close(logits, said.pred_masks[0, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, said.iou_scores[0, 0], rtol=0, atol=1e-5)


# LiteMedSAM's adapter with random weights


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    encoder, decoder = TinyVitEncoder().eval().requires_grad_(False), build_decoder()
    fold_batch_norms(encoder)
    decoder.requires_grad_(False).mask_decoder.iou_prediction_head.proj_out.bias.add_(
        0.5
    )  # fresh weights predict next to nothing
    return encoder, decoder


@pytest.fixture(scope="module")
def encoded(networks, image):
    """The image as the kernels encode it."""
    return LiteMedSam(*networks, "cpu").encode(image)


def without_fused_convolutions(patch):
    patch.setattr(torch.ops, "mkldnn", object())


def test_without_fused_convolutions_the_modules_encode(networks, image, encoded, monkeypatch):
    fast = encoded
    without_fused_convolutions(monkeypatch)
    plain = LiteMedSam(*networks, "cpu").encode(image)
    assert (fast.shape, fast.resized) == (plain.shape, plain.resized) == ((150, 201), (191, 256))
    torch.testing.assert_close(fast.features, plain.features, rtol=0, atol=2e-4)


@pytest.mark.parametrize("colour", [False, True])
def test_an_embedding_is_float32_in_the_decoders_layout(networks, image, encoded, colour):
    in_colour = np.stack([image] * 3, axis=-1)
    features = (LiteMedSam(*networks, "cpu").encode(in_colour) if colour else encoded).features
    assert (features.shape, features.dtype) == ((1, 256, 64, 64), torch.float32)
    assert features.is_contiguous(
        memory_format=torch.channels_last if fast_path_available("cpu") else torch.contiguous_format
    )


@pytest.mark.parametrize("fused", [False, True])
def test_a_decoded_box_is_what_transformers_says(networks, image, encoded, fused, monkeypatch):
    if not fused:
        without_fused_convolutions(monkeypatch)
    model, embedding = LiteMedSam(*networks, "cpu"), encoded
    with torch.inference_mode():
        boxes = torch.tensor([[box_to_network(BOXES[0], image.shape)]])
        expected = model.decoder(image_embeddings=embedding.features, input_boxes=boxes, multimask_output=False)
        logits = expected.pred_masks[0, :, :, :191, :]
        full = torch.nn.functional.interpolate(logits, size=image.shape, mode="bilinear", align_corners=False)
    answer = model.decode(embedding, SlicePrompt(BOXES[0]))
    np.testing.assert_array_equal(answer.mask, full[0, 0].numpy() > 0)
    assert answer.score == pytest.approx(float(expected.iou_scores), abs=1e-6)


def test_the_decoder_normalises_as_the_original(networks):
    """Another epsilon would move the logits by 0.02."""
    norms = [child for child in networks[1].mask_decoder.transformer.modules() if type(child) is torch.nn.LayerNorm]
    assert len(norms) == 9
    assert {norm.eps for norm in norms} == {1e-5}


@pytest.fixture(scope="module")
def plain_and_quick():
    """Of size 160, whose coarse levels of 10 and 5 are no multiples of their windows of 14 and 7."""
    plain = small_network(3, 160)
    quick = copy.deepcopy(plain)
    quicken(quick)
    return plain, quick


@pytest.mark.parametrize("tokens", [1, 320, 2048])
def test_sam2_encodes_in_strips_as_transformers_does(plain_and_quick, tokens, monkeypatch):
    monkeypatch.setattr("FoundationSegLib.models.cpu_kernels.sam.STRIP_TOKENS", tokens)
    plain, quick = plain_and_quick
    with torch.inference_mode():
        for seed in range(2):
            pixels = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(seed))
            expected, got = (network.vision_encoder(pixels).fpn_hidden_states for network in (plain, quick))
            for one, other in zip(got, expected, strict=True):
                assert other.std() > 0.2, "large enough for the tolerance to mean something"
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_weights_keep_their_names(plain_and_quick):
    plain, quick = plain_and_quick
    assert quick.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("tile", [(1, 1), (7, 5), (64, 1000), (1000, 64)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_tiles_of_every_size_attend_alike(tile, scale):
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(n, c, generator=random) for n, c in ((50, 16), (131, 16), (131, 5)))
    query *= scale  # with 300, nearly all of the weight is on one key
    expected = (query.double() @ key.double().t()).softmax(1) @ value.double()
    torch.testing.assert_close(attend_in_tiles(query, key, value, tile).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pointers", [0, 8])
@pytest.mark.parametrize("memories", [1, 3])
@pytest.mark.parametrize("small", [small_network, small_edgetam], ids=["SAM 2", "EdgeTAM"])
def test_memory_is_attended_to_as_transformers_does(small, memories, pointers):
    plain = small(1, 128)
    quick = copy.deepcopy(plain)
    quicken(quick)
    size = 64 if small is small_network else 24  # tokens of a slice; EdgeTAM's perceiver makes 8 and 16 of it
    random = torch.Generator().manual_seed(memories)
    current, memory, positions = (
        torch.randn(n, 1, c, generator=random)
        for n, c in ((64, 128), (memories * size + pointers, 64), (memories * size + pointers, 64))
    )
    more = {} if small is small_network else {"num_spatial_memory_tokens": memories}
    with torch.inference_mode():
        expected, got = (
            network.memory_attention(current, memory, current, positions, pointers, **more)
            for network in (plain, quick)
        )
    assert expected.std() > 0.3, "large enough for the tolerance to mean something"
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
