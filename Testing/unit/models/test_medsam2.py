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
from FoundationSegLib.models.segmentation.medsam2 import (
    MedSam2Preparation,
    configuration,
    to_transformers,
    transformers_name,
)
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


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_names_come_back_from_those_of_the_authors():
    """The way there was written apart from the way back, and each of the names is another one."""
    state = small_network().state_dict()
    there = as_meta(state)
    assert len(there) == len(state) + 4 - 1 - 1  # four embeddings of points for one, one shared embedding for two
    assert same(to_transformers(there), state)


def test_all_471_names_of_the_true_checkpoint_are_understood():
    with torch.device("meta"):
        state = Sam2VideoModel(configuration()).state_dict()
    there = as_meta(state)
    assert (len(there), len(state)) == (471, 469)
    found = to_transformers(there)
    assert {name: weight.shape for name, weight in found.items()} == {n: w.shape for n, w in state.items()}
    assert sum(weight.numel() for weight in there.values()) == pytest.approx(38.96e6, rel=1e-3)


# From the modules of facebookresearch/sam2, one of each kind.
AUTHORS = {
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
    "no_mem_embed": "no_memory_embedding",
    "no_obj_ptr": "no_object_pointer",
    "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
    "mask_downsample.weight": "mask_downsample.weight",
    "obj_ptr_proj.layers.2.bias": "object_pointer_proj.proj_out.bias",
    "obj_ptr_tpos_proj.weight": "temporal_positional_encoding_projection_layer.weight",
    "image_encoder.trunk.pos_embed_window": "vision_encoder.backbone.pos_embed_window",
    "image_encoder.trunk.blocks.11.norm2.weight": "vision_encoder.backbone.blocks.11.layer_norm2.weight",
    "image_encoder.trunk.blocks.0.mlp.layers.1.bias": "vision_encoder.backbone.blocks.0.mlp.proj_out.bias",
    "image_encoder.neck.convs.3.conv.weight": "vision_encoder.neck.convs.3.weight",
    "memory_attention.layers.3.cross_attn_image.out_proj.weight": (
        "memory_attention.layers.3.cross_attn_image.o_proj.weight"
    ),
    "memory_encoder.mask_downsampler.encoder.10.bias": "memory_encoder.mask_downsampler.layers.3.layer_norm.bias",
    "memory_encoder.mask_downsampler.encoder.12.bias": "memory_encoder.mask_downsampler.final_conv.bias",
    "memory_encoder.fuser.layers.1.gamma": "memory_encoder.memory_fuser.layers.1.scale",
    "memory_encoder.out_proj.weight": "memory_encoder.projection.weight",
    "sam_prompt_encoder.mask_downscaling.4.weight": "prompt_encoder.mask_embed.layer_norm2.weight",
    "sam_mask_decoder.pred_obj_score_head.layers.1.weight": "mask_decoder.pred_obj_score_head.layers.0.weight",
    "sam_mask_decoder.iou_prediction_head.layers.0.weight": "mask_decoder.iou_prediction_head.proj_in.weight",
    "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight": "mask_decoder.transformer.layers.1.mlp.proj_in.weight",
    "sam_mask_decoder.transformer.norm_final_attn.bias": "mask_decoder.transformer.layer_norm_final_attn.bias",
    "sam_mask_decoder.output_upscaling.3.weight": "mask_decoder.upscale_conv2.weight",
}


@pytest.mark.parametrize(("theirs", "ours"), AUTHORS.items())
def test_a_name_of_the_authors_is_understood(theirs, ours):
    assert transformers_name(theirs) == ours


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
