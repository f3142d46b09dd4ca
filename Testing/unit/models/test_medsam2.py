"""MedSAM2: the authors' preparation, its weights from their layout, and the way down that starts afresh."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Sam2VideoModel

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.models.protocols import SliceMask, SlicePrompt
from FoundationSegLib.models.segmentation import medsam2
from FoundationSegLib.models.segmentation.medsam2 import (
    MedSam2Preparation,
    configuration,
    to_transformers,
)
from Testing.models.reference_sam2 import Video
from Testing.models.sam_reference import as_rgb
from Testing.models.small_sam2 import as_meta, slice_of, small_config, small_network, volume_of_slices, write_medsam2

CARD = read_catalogue(card_folder())["medsam2"]
SIZE, SEED, START, SLICES = 128, 0, 3, 7
BOX = SlicePrompt((20.0, 10.0, 50.0, 40.0))
MASK = SlicePrompt(mask=SliceMask.pack(np.mgrid[:48, :64][0] + np.mgrid[:48, :64][1] < 50))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """From a checkpoint of reduced width in the authors' layout."""
    path = tmp_path_factory.mktemp("medsam2") / CARD.source.files[0].name
    return medsam2.load(CARD, write_medsam2(path, small_network(SEED, SIZE)), "cpu", small_config(SIZE))


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


@pytest.mark.parametrize("prompt", [BOX, MASK], ids=["box", "mask"])
def test_a_volume_is_followed_as_the_authors_script_does(model, frames, prompt):
    check_volume(model, frames, small_network(SEED, SIZE), prompt)


def test_colour_is_followed_too(model, frames):
    check_volume(model, [as_rgb(frame) for frame in frames], small_network(SEED, SIZE), BOX)


def test_all_471_names_of_the_true_checkpoint_are_understood():
    with torch.device("meta"):
        state = Sam2VideoModel(configuration()).state_dict()
    there = as_meta(state)
    assert (len(there), len(state)) == (471, 469)
    assert {name: weight.shape for name, weight in to_transformers(there).items()} == {
        n: w.shape for n, w in state.items()
    }
    assert sum(weight.numel() for weight in there.values()) == pytest.approx(38.96e6, rel=1e-3)


def test_all_sizes_are_those_of_512_pixels():
    """Loading succeeds with any of them; the answers would be wrong."""
    config = configuration()
    assert config.image_size == 512
    assert config.vision_config.backbone_config.image_size == [512, 512]
    assert config.vision_config.backbone_feature_sizes == [[128, 128], [64, 64], [32, 32]]
    assert config.prompt_encoder_config.image_size == 512
    assert config.memory_attention_rope_feat_sizes == [32, 32]


def test_everything_else_is_sam2_tinys():
    """MedSAM2's sam2.1_hiera_t512.yaml."""
    config = configuration()
    backbone = config.vision_config.backbone_config
    assert (backbone.hidden_size, backbone.blocks_per_stage) == (96, [1, 2, 7, 2])
    assert (backbone.global_attention_blocks, backbone.window_size_per_stage) == ([5, 7, 9], [8, 4, 14, 7])
    assert config.vision_config.backbone_channel_list == [768, 384, 192, 96]
    assert (config.num_maskmem, config.max_object_pointers_in_encoder) == (7, 16)
    assert (config.sigmoid_scale_for_mem_enc, config.sigmoid_bias_for_mem_enc) == (20.0, -10.0)
    assert config.enable_occlusion_spatial_embedding
    assert config.enable_temporal_pos_encoding_for_object_pointers
    assert (config.multimask_min_pt_num, config.multimask_max_pt_num) == (0, 1)
    decoder = config.mask_decoder_config
    assert decoder.dynamic_multimask_via_stability
    assert (decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh) == (0.05, 0.98)
