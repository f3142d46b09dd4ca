"""The attention of SAM's image encoder on a CPU, a strip of rows at a time: the arithmetic of transformers', float32.

Where every place of the image attends to every other, the positions' bias alone takes 0.8 GB in transformers, and a
copy of it as much again: one such attention of a ViT-B added 1.7 GB to the process, in strips 0.3 GB, with the same
bits as the answer and no more time. And the work can be stopped between strips.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamVisionAttention

STRIP_ROWS = 2  # 128 places, whose bias takes 25 MB in a ViT-B; with one row it is slower, with eight too


class AttentionStrip(nn.Module):
    """Attention of some places to all, as a module of its own so that a hook can come before it."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(1, heads, places, channels) of ``query``, with a ``bias`` of (1, heads, places, all places)."""
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class StripAttention(nn.Module):
    """What ``module`` computes of a whole image."""

    def __init__(self, module: SamVisionAttention) -> None:
        super().__init__()
        self.module, self.strip = module, AttentionStrip()

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """(1, rows, columns, channels) to the same shape; the weights of the attention are not kept."""
        module, (_, rows, columns, _) = self.module, hidden_states.shape
        places, heads = rows * columns, module.num_attention_heads
        qkv = module.qkv(hidden_states).reshape(1, places, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.contiguous().unbind(0)
        of_rows = module.get_rel_pos(rows, rows, module.rel_pos_h)
        of_columns = module.get_rel_pos(columns, columns, module.rel_pos_w)
        out = torch.empty_like(query)
        for first in range(0, rows, STRIP_ROWS):
            strip = slice(first * columns, (first + STRIP_ROWS) * columns)
            asked = query[:, :, strip]
            grid = asked.unflatten(2, (-1, columns))
            down = torch.einsum("bnhwc,hkc->bnhwk", grid, of_rows[first : first + STRIP_ROWS])
            across = torch.einsum("bnhwc,wkc->bnhwk", grid, of_columns)
            bias = (down[..., None] + across[..., None, :]).reshape(1, heads, -1, places)
            out[:, :, strip] = self.strip(asked, key, value, bias)
        return module.proj(out.transpose(1, 2).reshape(1, rows, columns, -1)), None


def attend_in_strips(layers: nn.ModuleList) -> None:
    """Let the layers without windows attend in strips; those with windows are small as they are."""
    for layer in layers:
        if layer.window_size == 0 and layer.attn.use_rel_pos:
            layer.attn = StripAttention(layer.attn)
