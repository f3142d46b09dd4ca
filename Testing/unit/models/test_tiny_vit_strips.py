"""The encoder in strips against the plain modules, with random weights."""

import numpy as np
import pytest
import torch
from torch import Tensor

from FoundationSegLib.errors import Cancelled
from FoundationSegLib.models.cpu_kernels.fused_convolution import fast_path_available
from FoundationSegLib.models.cpu_kernels.tiny_vit import StripEncoder
from FoundationSegLib.models.segmentation.lite_medsam import LiteMedSamEncoder, fold_batch_norms, prepare, prepare_grey

needs_fused = pytest.mark.skipif(not fast_path_available("cpu"), reason="torch without oneDNN's fused convolutions")
TOLERANCE = 2e-4  # the embedding has a standard deviation of 1; other orders of summing give 2e-5


@pytest.fixture(scope="module")
def modules() -> LiteMedSamEncoder:
    torch.manual_seed(0)
    encoder = LiteMedSamEncoder().eval().requires_grad_(False)
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
def expected(modules: LiteMedSamEncoder, image: np.ndarray) -> Tensor:
    return modules(torch.from_numpy(prepare(image)))


@needs_fused
@pytest.mark.parametrize("pixels", [1, 1000, 5000, 8192, 10**6])
def test_strips_of_every_size_give_the_modules_embedding(modules, image, expected, pixels, monkeypatch):
    monkeypatch.setattr("FoundationSegLib.models.cpu_kernels.tiny_vit.STRIP_PIXELS", pixels)
    with torch.inference_mode():
        answer = StripEncoder(modules, 256).grey(*map(torch.from_numpy, prepare_grey(image)))
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
def test_the_same_image_gives_the_same_bits_whatever_came_before(modules, image):
    encoder = StripEncoder(modules, 256)
    grey = [torch.from_numpy(part) for part in prepare_grey(image)]
    other = [torch.from_numpy(part) for part in prepare_grey(image[::-1])]
    with torch.inference_mode():
        first, between, again = (encoder.grey(*parts) for parts in (grey, other, grey))
    assert not torch.equal(first, between)
    assert torch.equal(first, again)


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
