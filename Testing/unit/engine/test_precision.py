"""Shorter numbers where the device is made for them and the masks stay; what is not proven here: CUDA itself."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.engine.precision import LeanModel, agreement_of, best_precision, choose_precision, example_slice
from FoundationSegLib.models.protocols import SliceAnswer, SlicePrompt, has_memory, unstoppable
from FoundationSegLib.models.segmentation import sam, sam2
from Testing.models import small_sam, small_sam2


@dataclass(frozen=True)
class Features:
    features: torch.Tensor
    maps: tuple[torch.Tensor, ...] = ()
    shape: tuple[int, int] = (256, 256)


@dataclass
class Rounding:
    """A model that finds what a matrix product lifts above a level: as sensitive to rounding as it is told to be."""

    scale: float
    device: str = "cpu"
    precision: str = "float32"
    seen: list[torch.dtype] = field(default_factory=list)

    def encode(self, image, check=unstoppable):
        pixels = torch.from_numpy(image).float() / 255
        product = pixels @ torch.eye(256)
        self.seen.append(product.dtype)
        return Features(product, (product,))

    def decode(self, embedding, prompt, previous=None):
        assert embedding.features.dtype == embedding.maps[0].dtype == torch.float32
        lifted = torch.sin(embedding.features * self.scale) if self.scale > 1 else embedding.features
        return SliceAnswer((lifted > 0.6).numpy(), 0.5)


@pytest.mark.parametrize(
    ("capability", "wanted"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_what_a_device_is_made_for(monkeypatch, capability, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision("cuda") == wanted
    assert best_precision("cpu") == best_precision("mps") == "float32"


def test_where_masks_agree_the_encoder_is_lean():
    model = Rounding(scale=1)
    lean, notes = choose_precision(model, "bfloat16")
    assert (lean.precision, lean.device, notes) == ("bfloat16", "cpu", ())
    assert model.seen == [torch.float32, torch.bfloat16]
    assert choose_precision(model, "float32") == (model, ())


def test_where_they_do_not_it_stays_as_it_is():
    chosen, (note,) = choose_precision(model := Rounding(scale=3000), "bfloat16")
    assert chosen is model
    assert note.startswith("the model computes in float32: in bfloat16 its masks would differ (Dice 0.")


@pytest.mark.parametrize(
    "answer", [SliceAnswer(np.zeros((256, 256), bool), 0.5), SliceAnswer(np.ones((2, 2), bool), np.nan)]
)
def test_nothing_found_is_no_agreement(answer):
    class Silent(Rounding):
        def decode(self, embedding, prompt, previous=None):
            return answer

    assert agreement_of(Silent(1), Silent(1)) == 0


@pytest.mark.parametrize("family", ["sam", "sam2"])
@pytest.mark.parametrize("numbers", ["bfloat16", "float16"])
def test_every_embedding_comes_back_in_32_bits(tmp_path, family, numbers):
    """Of the true networks with random weights; on a CPU, which can compute so, if slowly."""
    if family == "sam":
        small_sam.write_checkpoint(tmp_path, small_sam.small_config(256))
        files = {path.name: path for path in tmp_path.iterdir()}
        model = sam.load(read_catalogue()["sam-vit-base"], files, "cpu")
    else:
        files = small_sam2.write_checkpoint(tmp_path, small_sam2.small_network(size=128))
        model = sam2.load(read_catalogue()["sam2.1-hiera-tiny"], files, "cpu")
    lean, prompt = LeanModel(model, numbers), SlicePrompt((60.0, 50.0, 180.0, 190.0))
    image = example_slice()[0]
    whole, short = model.encode(image), lean.encode(image)
    first, second = ((one.features,) if family == "sam" else one.maps for one in (whole, short))
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()
    assert lean.decode(short, prompt).mask.shape == image.shape
    assert has_memory(lean) == has_memory(model) == (family == "sam2")
    if family == "sam2":
        memory = lean.remember(3)
        assert memory.prompt(0, short, prompt).mask.shape == memory.follow(1, short, True).mask.shape == image.shape
