"""A small VISTA3D with random weights in the true layout: the same network, six times narrower."""

from collections.abc import Mapping
from pathlib import Path

import torch
from monai.networks.nets import vista3d132
from safetensors.torch import save_file

NAME = "model.safetensors"
PATCH = (32, 32, 32)


def small_network(seed: int = 21) -> torch.nn.Module:
    """A network that says different things of different classes, and neither everything nor nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = vista3d132(encoder_embed_dim=8).eval().requires_grad_(False)
        for embedding in (network.class_head.class_embeddings, network.point_head.class_embeddings):
            embedding.weight.normal_(0, 3)
    return network


def write_checkpoint(folder: Path, network: torch.nn.Module | None = None) -> Mapping[str, Path]:
    """The file as the Hub has it: every name with ``network.`` before it."""
    network = network or small_network()
    save_file({f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}, folder / NAME)
    return {NAME: folder / NAME}
