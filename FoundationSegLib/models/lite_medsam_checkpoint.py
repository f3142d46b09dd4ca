"""The weights of LiteMedSAM's checkpoint under the names of the modules here."""

from collections.abc import Mapping

from torch import Tensor

from .original_sam import DECODER_RULES, renamed, with_shared_table

_ENCODER_RULES = (
    (r"patch_embed\.seq\.0", "patch_embed.conv1"),
    (r"patch_embed\.seq\.2", "patch_embed.conv2"),
    (r"layers\.0\.downsample", "stages.1.downsample"),
    (r"layers\.1\.downsample", "stages.2.downsample"),
    (r"layers\.2\.downsample", "stages.3.downsample"),
    (r"layers\.(\d)\.blocks", r"stages.\1.blocks"),
    (r"\.c\.weight", ".conv.weight"),
)


def split_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the encoder and of the decoder, under the names of the modules here."""
    prefix = "image_encoder."
    encoder = {renamed(k.removeprefix(prefix), _ENCODER_RULES): v for k, v in state.items() if k.startswith(prefix)}
    decoder = {renamed(k, DECODER_RULES): v for k, v in state.items() if not k.startswith(prefix)}
    return encoder, with_shared_table(decoder)
