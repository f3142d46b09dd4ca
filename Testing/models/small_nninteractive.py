"""A small nnInteractive model folder with random weights in the true layout, and the package called directly on it."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from FoundationSegLib.models.protocols import VolumeBox, VolumePoint, VolumeVoxels

FOLDER = "nnInteractive_v1.0"
CONFIGURATION = "3d_fullres_ps192_bs24"
_RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def plans(patch: int = 32) -> dict[str, Any]:
    """The configuration of a network of three stages that looks at ``patch`` voxels along each axis."""
    network = {
        "n_stages": 3,
        "features_per_stage": [8, 16, 32],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_blocks_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling: dict[str, Any] = {}
    for array in ("data", "seg", "probabilities"):
        resampling[f"resampling_fn_{array}"] = "resample_data_or_seg_to_shape"
        resampling[f"resampling_fn_{array}_kwargs"] = _RESAMPLING
    configuration = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": [patch] * 3,
        "median_image_size_in_voxels": [100] * 3,
        "spacing": [1, 1, 1],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        **resampling,
    }
    return {
        "dataset_name": "Dataset225_nnInteractiveV2",
        "plans_name": "nnUNetResEncUNetLPlans",
        "original_median_spacing_after_transp": [1, 1, 1],
        "original_median_shape_after_transp": [100, 100, 100],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "x",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
    }


def write_checkpoint(root: Path, patch: int = 32, seed: int = 0) -> dict[str, Path]:
    """Write the folder of the card below a folder; returns its files by the card's paths."""
    from nnInteractive.trainer.nnInteractiveTrainer import nnInteractiveTrainer_stub
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = root / FOLDER
    (folder / "fold_0").mkdir(parents=True)
    labels = {"background": 0, "object": 1}
    dataset = {"channel_names": {"0": "image"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    session = {"point_radius": 4, "preferred_scribble_thickness": 2, "interaction_decay": 0.9}
    (folder / "plans.json").write_text(json.dumps(plans(patch)))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "inference_session_class.json").write_text(json.dumps({**session, "pad_mode_image": "constant"}))
    (folder / "LICENSE").write_text("CC BY-NC-SA 4.0\n")
    manager = PlansManager(plans(patch))
    configuration = manager.get_configuration(CONFIGURATION)
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        network = nnInteractiveTrainer_stub.build_network_architecture(manager, configuration, 8, 2, False)
    # With the weights as they come, hardly a prompt makes a difference: what is drawn shall count as the image does.
    with torch.no_grad():
        first = next(weight for weight in network.parameters() if weight.ndim == 5)
        first[:, 1:] *= 6
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnInteractiveTrainer_stub",
        "init_args": {"configuration": CONFIGURATION},
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return {path.relative_to(root).as_posix(): path for path in folder.rglob("*") if path.is_file()}


class Direct:
    """The package as its README says to call it, and nothing of ours."""

    def __init__(self, folder: Path, array: np.ndarray, autozoom: bool = False) -> None:
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

        with contextlib.redirect_stdout(io.StringIO()):
            self.session = nnInteractiveInferenceSession(
                device=torch.device("cpu"), torch_n_threads=torch.get_num_threads(), do_autozoom=autozoom
            )
            self.session.initialize_from_trained_model_folder(str(folder))
            self.session.network.eval()
            self.session.set_image(array[None])
        self.mask = np.zeros(array.shape, np.uint8)
        self.session.set_target_buffer(self.mask)

    def call(self, name: str, *arguments: Any, **options: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            getattr(self.session, f"add_{name}_interaction")(*arguments, **options)


def directly(root, array, parts):
    """The mask of the package for these parts, called one after the other as its README says."""
    direct = Direct(root / FOLDER, array)
    known = [part for part in parts if isinstance(part, VolumeVoxels) and part.kind == "mask"]
    others = [part for part in parts if part not in known]
    if known:
        whole = np.logical_or.reduce([part.voxels.expand(array.shape) for part in known]).astype(np.uint8)
        direct.call("initial_seg", whole, run_prediction=not others)
    for part in others:
        if isinstance(part, VolumePoint):
            direct.call("point", part.index_kji, part.positive)
        elif isinstance(part, VolumeBox):
            limits = [[a, b] for a, b in zip(part.box.start_kji, part.box.stop_kji, strict=True)]
            direct.call("bbox", limits, part.positive)
        else:
            direct.call(part.kind, part.voxels.expand(array.shape).astype(np.uint8), part.positive)
    return direct.mask > 0
