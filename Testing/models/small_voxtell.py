"""A small VoxTell with random weights in the true layout, and the package called directly on it.

Its predictor fixes the sizes of the network, so that a narrower one is put in its place, for both sides alike.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from voxtell.inference import predictor as package
from voxtell.model.voxtell_model import VoxTellModel

FOLDER = "voxtell_v1.1"
PHRASES = ("liver", "right kidney", "left kidney", "spleen", "tumor in the left lung")
PATCH = 32
_WIDTHS = (8, 8, 16, 16, 32, 32)


class SmallVoxTell(VoxTellModel):
    """The same network with fewer and narrower layers."""

    TRANSFORMER_NUM_HEADS = 4
    TRANSFORMER_NUM_LAYERS = 1
    DECODER_CONFIGS = {  # noqa: RUF012 - as in the package
        n: {"channels": width, "shape": (PATCH >> n,) * 3} for n, width in enumerate(_WIDTHS)
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"query_dim": 48, "num_heads": 4, "project_to_decoder_hidden_dim": 32})


def plans() -> dict[str, Any]:
    network = {
        "n_stages": 6,
        "features_per_stage": list(_WIDTHS),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * 4, [1, 1, 1]],
        "n_blocks_per_stage": [1] * 6,
        "n_conv_per_stage_decoder": [1] * 5,
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    imported = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    architecture = {"arch_kwargs": network, "_kw_requires_import": imported}
    return {"configurations": {"3d_fullres": {"patch_size": [PATCH] * 3, "architecture": architecture}}}


def small_network(seed: int = 0) -> torch.nn.Module:
    options = plans()["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    layers = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallVoxTell(
            input_channels=1,
            **options | layers,
            decoder_layer=4,
            text_embedding_dim=2560,
            num_maskformer_stages=5,
        )


def write_checkpoint(root: Path, seed: int = 0) -> dict[str, Path]:
    """Write the files of the card below a folder; returns them by the card's paths."""
    folder, bank = root / FOLDER, root / "embeddings" / FOLDER
    (folder / "fold_0").mkdir(parents=True)
    bank.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans()))
    content = {
        "network_weights": small_network(seed).state_dict(),
        "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)]},  # as a training run leaves it
        "init_args": {"plans": plans(), "fold": 0},
        "trainer_name": "VoxTellTrainer",
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    embeddings = np.random.default_rng(seed).normal(0, 1, (len(PHRASES), 2560)).astype(np.float16)
    labels = np.array([phrase.capitalize() for phrase in PHRASES])
    np.savez(bank / "text_embeddings.npz", labels=labels, embeddings=embeddings)
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Have the package build the small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "VoxTellModel", SmallVoxTell)
        yield


def direct(root: Path, image: Path, phrases: list[str], written: Path) -> list[np.ndarray]:
    """What the package writes for a NIfTI file, phrase by phrase; (I, J, K) on the file's grid."""
    import nibabel

    with small(), contextlib.redirect_stderr(io.StringIO()):
        predictor = package.VoxTellPredictor(
            str(root / FOLDER),
            torch.device("cpu"),
            embedding_bank=str(root / "embeddings" / FOLDER / "text_embeddings.npz"),
        )
        files = predictor.predict_from_files(image, written, phrases)
    return [np.asarray(nibabel.load(file).dataobj) for file in files]
