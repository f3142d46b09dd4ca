"""Small checkpoints of models that compare whole volumes with texts, with random weights in the true layout."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from Testing.models.small_image_text import bert_words, randomise

COLIPRI_SIZE = 48  # voxels: 6 parts along each axis


def colipri_shapes() -> dict[str, torch.Tensor]:
    """The tensors that say COLIPRI's sizes: two layers in each tower, 12 heads as there."""
    text, image = "text_encoder.backbone", "image_encoder.backbone.eva.blocks"
    shapes = {
        f"{image}.0.mlp.fc1_g.weight": (192, 72),
        f"{image}.1.mlp.fc1_g.weight": (192, 72),
        "image_encoder.projector.bias": (48,),
        f"{text}.embeddings.word_embeddings.weight": (3000, 48),
        f"{text}.embeddings.position_embeddings.weight": (512, 48),
        f"{text}.encoder.layer.0.intermediate.dense.bias": (96,),
        f"{text}.encoder.layer.1.intermediate.dense.bias": (96,),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def write_colipri(folder: Path) -> dict[str, Path]:
    """As `microsoft/colipri` is stored, with the vocabulary of its text tower's repository."""
    from FoundationSegLib.models.classification.colipri import ColipriNetwork

    network = randomise(ColipriNetwork(colipri_shapes()), seed=4)
    network.softmax_temperature.data.fill_(0.07)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(bert_words()) + "\n", encoding="utf-8")
    return {path.name: path for path in folder.iterdir()}
