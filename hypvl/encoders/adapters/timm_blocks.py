"""Blocks of timm's vision transformers for adapters: same parameters and names, more places."""

from typing import Any

import torch.nn.functional as F
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from hypvl.encoders.adapters.places import Kind, Linear, fused
from hypvl.encoders.adapters.prefix import LayerPrefix, prefix_mask, prepend
from hypvl.encoders.image import ReadOutBlock


class PrefixAttention(Attention):
    """timm's attention, to a prefix and all tokens."""

    key_value_prefix: LayerPrefix

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        count = x.shape[1]
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B, A, N, W/A)
        query, key = self.q_norm(query), self.k_norm(key)
        keys, values, factor = self.key_value_prefix.take()
        mask = prefix_mask(
            attn_mask, causal=is_causal, queries=count, keys=count, prefix=keys.shape[1], device=x.device
        )
        mixed = F.scaled_dot_product_attention(
            query,
            prepend(keys, key, factor),
            prepend(values, value, factor),
            attn_mask=mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
        )
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        gate = getattr(self, "gate", None)  # since timm 1.0.27
        if gate is not None:
            mixed = mixed * gate(x).sigmoid()
        attended: Tensor = self.proj_drop(self.proj(mixed))
        return attended


def open_attention(encoder: nn.Module, block: nn.Module) -> None:
    """Let the attention of a block take a prefix, in place; ValueError for another attention than timm's usual one."""
    attention = block.get_submodule("attn")
    if type(attention) is not Attention:
        raise ValueError(
            f"method: got one with a prefix, which {type(attention).__name__} of this encoder does not take; expected "
            f"the plain attention of timm, or a method without a prefix."
        )
    attention.__class__ = PrefixAttention


def open_rows(encoder: nn.Module, block: nn.Module) -> None:
    """Let the last block compute every token, so that its gates average over all of them."""
    if type(block) is ReadOutBlock:
        last: Any = block
        last.__class__ = Block


VIT_BLOCK = Kind(
    attention="attn",
    heads="num_heads",
    query_key_value=fused("attn.qkv"),
    intermediate=Linear("mlp.fc1"),
    attention_end="ls1",
    ffn_end="ls2",
    ffn="mlp",
    open_prefix=open_attention,
    open_gates=open_rows,
)
KINDS = {"timm.models.vision_transformer.Block": VIT_BLOCK}
