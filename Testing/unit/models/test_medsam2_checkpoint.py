"""MedSAM2's checkpoint: every name, and the settings for 512 pixels."""

import pytest
import torch
from transformers import Sam2VideoModel

from FoundationSegLib.models.segmentation.medsam2 import configuration, to_transformers, transformers_name
from Testing.models.meta_sam2 import as_meta
from Testing.models.small_sam2 import small_network


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
