"""MedSAM2: the authors' preparation, its weights from their layout, and the way down that starts afresh."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Sam2VideoModel

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.protocols import SliceMask, SlicePrompt, load_slice_model
from FoundationSegLib.models.segmentation import medsam2
from FoundationSegLib.models.segmentation.medsam2 import MedSam2Preparation
from FoundationSegLib.models.segmentation.sam2 import Preparation
from Testing.models.meta_sam2 import as_meta, write_medsam2
from Testing.models.reference_sam2 import Video
from Testing.models.sam_cases import as_rgb
from Testing.models.small_sam2 import enliven, slice_of, small_config, small_network, volume_of_slices

pytestmark = pytest.mark.usefixtures("one_thread")
CARD = read_catalogue(card_folder())["medsam2"]
FILE = "MedSAM2_latest.pt"
SIZE, SEED, START, SLICES = 128, 0, 3, 7
BOX = SlicePrompt((20.0, 10.0, 50.0, 40.0))
MASK = SlicePrompt(mask=SliceMask.pack(np.mgrid[:48, :64][0] + np.mgrid[:48, :64][1] < 50))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """By way of the product's loading, from a checkpoint of reduced width in the authors' layout."""
    path = tmp_path_factory.mktemp("medsam2") / FILE
    write_medsam2(path, small_network(SEED, SIZE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medsam2, "configuration", lambda: small_config(SIZE))
        return load_slice_model(CARD, {FILE: path}, "cpu")


@pytest.fixture(scope="module")
def frames():
    return volume_of_slices(SLICES)


def authors_pixels(image, size):
    """resize_grayscale_to_rgb_and_resize and what follows it in MedSAM2's scripts; (3, size, size)."""
    resized = np.array(Image.fromarray(image).convert("RGB").resize((size, size))).transpose(2, 0, 1) / 255.0
    pixels = torch.from_numpy(resized)
    pixels -= torch.tensor((0.485, 0.456, 0.406), dtype=torch.float32)[:, None, None]
    pixels /= torch.tensor((0.229, 0.224, 0.225), dtype=torch.float32)[:, None, None]
    return pixels.float()


def authors_video(frames, network):
    """transformers' session on frames that the authors' script prepared."""
    video = Video(network, frames, SIZE)
    video.session.processed_frames = {i: authors_pixels(frame, SIZE) for i, frame in enumerate(frames)}
    return video


def check_volume(model, frames, network, prompt):
    """Up, and down with a new memory that has the prompt alone, as medsam2_infer_3D_CT.py does it."""
    embeddings = [model.encode(frame) for frame in frames]
    video = authors_video(frames, network)
    for upwards, steps in ((True, range(START + 1, SLICES)), (False, range(START - 1, -1, -1))):
        memory = model.remember(SLICES)
        answers = {START: memory.prompt(START, embeddings[START], prompt)}
        answers |= {index: memory.follow(index, embeddings[index], upwards) for index in steps}
        video.reset()
        video.prompt(START, prompt)
        said = video.propagate(START, upwards)
        for index, answer in answers.items():
            np.testing.assert_array_equal(answer.mask, said[index][0].mask)
            assert answer.absent == (not said[index][0].present)


def test_every_weight_comes_from_the_authors_layout(model):
    loaded, expected = model.network.state_dict(), small_network(SEED, SIZE).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_its_rules_are_those_of_its_authors(model):
    assert model.fresh_each_way
    assert model.largest_part_only
    assert CARD.prompts == ("box", "mask")


@pytest.mark.parametrize("shape", [(48, 64), (150, 90), (37, 501), (1, 61), (53, 1), (60, 44, 3), (128, 128)])
def test_the_preparation_is_the_authors(shape):
    image = slice_of(shape)
    pixels = MedSam2Preparation(SIZE)(image)
    assert (pixels.shape, pixels.dtype) == ((1, 3, SIZE, SIZE), torch.float32)
    torch.testing.assert_close(pixels[0], authors_pixels(image, SIZE), rtol=0, atol=1e-6)


def test_the_usual_preparation_is_another(frames):
    assert (Preparation(SIZE)(frames[0]) - MedSam2Preparation(SIZE)(frames[0])).abs().max() > 0.1


@pytest.mark.parametrize("prompt", [BOX, MASK], ids=["box", "mask"])
def test_a_volume_is_followed_as_the_authors_script_does(model, frames, prompt):
    check_volume(model, frames, small_network(SEED, SIZE), prompt)


def test_colour_is_followed_too(model, frames):
    check_volume(model, [as_rgb(frame) for frame in frames], small_network(SEED, SIZE), BOX)


def test_a_way_down_that_remembers_the_way_up_is_another(model, frames):
    """So that the test above would notice it."""
    embeddings = [model.encode(frame) for frame in frames]
    fresh, used = model.remember(SLICES), model.remember(SLICES)
    for memory in (fresh, used):
        memory.prompt(START, embeddings[START], BOX)
    for index in range(START + 1, SLICES):
        used.follow(index, embeddings[index], True)
    one, other = (memory.follow(START - 1, embeddings[START - 1], False) for memory in (fresh, used))
    assert one.score != other.score


@pytest.mark.parametrize(
    "defect",
    [
        lambda frame: Preparation(SIZE)(frame),
        lambda frame: MedSam2Preparation(SIZE)(frame).flip(-1),
        lambda frame: MedSam2Preparation(SIZE)(frame).flip(-2),
        lambda frame: MedSam2Preparation(SIZE)(frame) * 0.225,
        lambda frame: MedSam2Preparation(SIZE)(frame) + 0.5,
    ],
    ids=["bilinear", "left and right swapped", "rows flipped", "wrong deviation", "wrong mean"],
)
def test_a_planted_defect_is_found(model, frames, monkeypatch, defect):
    monkeypatch.setattr(model, "_prepare", defect)
    with pytest.raises(AssertionError):
        check_volume(model, frames, small_network(SEED, SIZE), BOX)


def test_a_box_around_a_mask_has_the_same_margin_as_sam2s(model):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[40:61, 50:91] = True
    margin = 3 / 256 * SIZE
    assert model.box_around(mask) == (50 - margin, 40 - margin, 90 + margin, 60 + margin)


@pytest.mark.parametrize("change", ["missing", "left over", "another shape"])
def test_other_weights_are_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(medsam2, "configuration", lambda: small_config(SIZE))
    state = as_meta(small_network(SEED, SIZE).state_dict())
    if change == "missing":
        del state["sam_prompt_encoder.point_embeddings.2.weight"]
    elif change == "left over":
        state["ema.decay"] = torch.zeros(1)
    else:
        state["no_mem_embed"] = torch.zeros(1, 1, 3)
    torch.save({"model": state}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match="MedSAM2"):
        load_slice_model(CARD, {FILE: tmp_path / FILE}, "cpu")


def test_the_true_size_is_loaded_strictly(full, tmp_path, bar):
    if not full:
        pytest.skip("a checkpoint of 156 MB is written with --full")
    network = Sam2VideoModel(medsam2.configuration())
    enliven(network, SEED)
    write_medsam2(tmp_path / FILE, network)
    model = load_slice_model(CARD, {FILE: tmp_path / FILE}, "cpu")
    loaded, expected = model.network.state_dict(), network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    bar("MedSAM2, MB of weights", model.nbytes / 1e6, "155.9 as published")
    assert model.encode(slice_of((512, 512))).nbytes == 4 * 2**20
