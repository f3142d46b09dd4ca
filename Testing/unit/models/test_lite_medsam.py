"""The adapter with random weights: what it is made of does what the plain modules do."""

import numpy as np
import pytest
import torch

from FoundationSegLib.models.cpu_kernels.fused_convolution import fast_path_available
from FoundationSegLib.models.protocols import SlicePrompt
from FoundationSegLib.models.segmentation import lite_medsam
from FoundationSegLib.models.segmentation.lite_medsam import (
    LiteMedSam,
    LiteMedSamEncoder,
    build_decoder,
    fold_batch_norms,
)

BOX = (20.0, 30.0, 90.0, 70.0)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    encoder, decoder = LiteMedSamEncoder().eval().requires_grad_(False), build_decoder()
    fold_batch_norms(encoder)
    decoder.requires_grad_(False).mask_decoder.iou_prediction_head.proj_out.bias.add_(
        0.5
    )  # fresh weights predict next to nothing
    return encoder, decoder


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (120, 150), dtype=np.uint8)


def without_fused_convolutions(patch):
    patch.setattr(torch.ops, "mkldnn", object())


def test_without_fused_convolutions_the_modules_encode(networks, image, monkeypatch):
    fast = LiteMedSam(*networks, "cpu").encode(image)
    without_fused_convolutions(monkeypatch)
    plain = LiteMedSam(*networks, "cpu").encode(image)
    assert (fast.shape, fast.resized) == (plain.shape, plain.resized) == ((120, 150), (205, 256))
    torch.testing.assert_close(fast.features, plain.features, rtol=0, atol=2e-4)


@pytest.mark.parametrize("colour", [False, True])
def test_an_embedding_is_float32_in_the_decoders_layout(networks, image, colour):
    seen = np.stack([image] * 3, axis=-1) if colour else image
    features = LiteMedSam(*networks, "cpu").encode(seen).features
    assert (features.shape, features.dtype) == ((1, 256, 64, 64), torch.float32)
    assert features.is_contiguous(
        memory_format=torch.channels_last if fast_path_available("cpu") else torch.contiguous_format
    )


@pytest.mark.parametrize("fused", [False, True])
def test_a_decoded_box_is_what_transformers_says(networks, image, fused, monkeypatch):
    if not fused:
        without_fused_convolutions(monkeypatch)
    model = LiteMedSam(*networks, "cpu")
    embedding = model.encode(image)
    with torch.inference_mode():
        boxes = torch.tensor([[lite_medsam.box_to_network(BOX, image.shape)]])
        expected = model.decoder(image_embeddings=embedding.features, input_boxes=boxes, multimask_output=False)
        logits = expected.pred_masks[0, :, :, :205, :]
        full = torch.nn.functional.interpolate(logits, size=image.shape, mode="bilinear", align_corners=False)
    answer = model.decode(embedding, SlicePrompt(BOX))
    np.testing.assert_array_equal(answer.mask, full[0, 0].numpy() > 0)
    assert answer.score == pytest.approx(float(expected.iou_scores), abs=1e-6)


def test_the_decoder_normalises_as_the_original(networks):
    """Another epsilon would move the logits by 0.02."""
    norms = [child for child in networks[1].mask_decoder.transformer.modules() if type(child) is torch.nn.LayerNorm]
    assert len(norms) == 9
    assert {norm.eps for norm in norms} == {1e-5}
