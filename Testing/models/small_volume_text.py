"""Small checkpoints of models that compare whole volumes with texts, with random weights in the true layout."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel

from Testing.models.small_image_text import bert_words, randomise

COLIPRI_SIZE = 48  # voxels: 6 parts along each axis
MERLIN_FILE = "i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt"
MERLIN_SIZE = (64, 96, 48)  # voxels: 2, 3 and 3 parts along x, y and z


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


def merlin_shapes(
    depths: Sequence[int] = (1, 2, 2, 1),
    inner: int = 4,
    text: tuple[int, int, int, int] = (300, 1030, 48, 2),
    heads: tuple[int, int] = (1692, 40),
) -> dict[str, torch.Tensor]:
    """The tensors that say Merlin's sizes.

    Args:
        depths: the blocks of each layer of the picture tower.
        inner: the width of its first layer; each further one is twice as wide.
        text: words, positions, width and layers of the text tower.
        heads: the number of phenotypes, and the length of vectors.
    """
    image, tower = "encode_image.i3_resnet", "encode_text.text_encoder"
    words, positions, width, layers = text
    shapes = {
        f"{image}.conv1.weight": (inner,),
        f"{image}.classifier.bias": heads[:1],
        f"{image}.contrastive_head.bias": heads[1:],
        f"{tower}.embeddings.word_embeddings.weight": (words, width),
        f"{tower}.embeddings.position_embeddings.weight": (positions, width),
        "encode_text.linear_layer.bias": heads[1:],
    }
    for number, depth in enumerate(depths):
        blocks = range(depth)
        shapes |= {f"{image}.layer{number + 1}.{n}.conv1.weight": (inner * 2**number,) for n in blocks}
    shapes |= {f"{tower}.encoder.layer.{n}.intermediate.dense.bias": (4 * width,) for n in range(layers)}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def write_merlin(folder: Path) -> dict[str, Path]:
    """As `stanfordmimi/Merlin` is stored, with the words of its text tower's repository."""
    from FoundationSegLib.models.classification.merlin import MerlinNetwork

    network = randomise(MerlinNetwork(merlin_shapes()), seed=5)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):  # means about zero, or nothing is left after rectifying
            buffer.uniform_(0.5, 1.5).sub_(1.0 if name.endswith("mean") else 0.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.weight.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), folder / MERLIN_FILE)
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "li", "ve", "ver", "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nl i\nv e\nve r\n", encoding="utf-8")
    return {path.name: path for path in folder.iterdir()}
