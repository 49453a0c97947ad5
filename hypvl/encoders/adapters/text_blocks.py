"""Blocks of :class:`~hypvl.encoders.text.TextTransformer` for adapters: same parameters and names, more places."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.encoders.adapters.gate import GroupedRows, Rows
from hypvl.encoders.adapters.places import Kind, Linear, fused
from hypvl.encoders.adapters.prefix import LayerPrefix, prefix_mask, prepend
from hypvl.encoders.text import Groups, ResidualBlock, TextTransformer, split_groups


class ProjectedTokens(nn.Module):
    """Returns its second input: a place for hooks that see the input and output of a projection."""

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        """(T, W), (T, 3 W) -> (T, 3 W)."""
        return projected


class OpenSelfAttention(nn.Module):
    """The self-attention of the text transformer, with projections that can be hooked and a place for a prefix."""

    heads: int
    causal: bool
    in_proj_weight: nn.Parameter
    in_proj_bias: nn.Parameter
    out_proj: nn.Linear
    projected: ProjectedTokens
    key_value_prefix: LayerPrefix | None = None

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """Attend within each text, and to the prefix: (T, W) -> (T, W)."""
        qkv = self.projected(x, F.linear(x, self.in_proj_weight, self.in_proj_bias))  # (T, 3W)
        attended: Tensor = self.out_proj(self._attend(qkv, groups))
        return attended

    @torch.compiler.disable  # groups differ from batch to batch
    def _attend(self, qkv: Tensor, groups: Groups) -> Tensor:
        prefix = None if self.key_value_prefix is None else self.key_value_prefix.take()
        factor = None if prefix is None else prefix[2]
        factors = [None] * len(groups) if factor is None else factor.split([rows for rows, _ in groups])
        attended = []
        for part, own in zip(split_groups(qkv, groups), factors, strict=True):
            query, key, value = part.unflatten(-1, (3, self.heads, -1)).permute(
                2, 0, 3, 1, 4
            )  # (B, A, L, W/A)
            mask, length = None, query.shape[2]
            if prefix is not None:
                keys, values, _ = prefix
                mask = prefix_mask(
                    None,
                    causal=self.causal,
                    queries=length,
                    keys=length,
                    prefix=keys.shape[1],
                    device=qkv.device,
                )
                key, value = prepend(keys, key, own), prepend(values, value, own)
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=self.causal and prefix is None
            )  # (B, A, L, W/A)
            attended.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))  # (B L, W)
        return torch.cat(attended)


class WholeBlock(ResidualBlock):
    """Last block that computes every token before it keeps some: its gates average over all of them."""

    def forward(self, x: Tensor, groups: Groups, kept: Tensor | None = None) -> Tensor:
        """(T, W) -> (T, W), or (B, W) of those ``kept``."""
        x = super().forward(x, groups)
        return x if kept is None else x[kept]


class MarkedGroups(list[tuple[int, int]]):
    """Groups of texts with the tokens that are not padding, ``valid`` (T,), which blocks get with their input."""

    valid: Tensor


class MarkingTextTransformer(TextTransformer):
    """A text transformer whose blocks know which tokens are padding: those after the token that is read out.

    Where later tokens are attended to, or the last one of the context is read out, padding is part of the text.
    """

    @torch.compiler.disable  # as of the base
    def _lay_out(
        self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None
    ) -> tuple[Tensor, Groups, Tensor]:
        x, groups, read_out = super()._lay_out(tokens, lengths)
        marked = MarkedGroups(groups)
        marked.valid = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if self.causal and self.read_out != "last":
            marked.valid = up_to(read_out.sort().values, groups)  # one in each row, in the order of the rows
        return x, marked, read_out


def up_to(ends: Tensor, groups: Groups) -> Tensor:
    """Which of the T tokens of some groups stand before the end of their row, or at it: indices (B,) -> (T,)."""
    valid: list[Tensor] = []
    offset = 0
    for part, (rows, length) in zip(ends.split([rows for rows, _ in groups]), groups, strict=True):
        places = torch.arange(offset, offset + rows * length, device=ends.device)
        valid.append(places <= part.repeat_interleave(length))
        offset += rows * length
    return torch.cat(valid)


def open_attention(encoder: nn.Module, block: nn.Module) -> None:
    """Open the attention of a block in place."""
    attention = block.get_submodule("attn")
    if not isinstance(attention, OpenSelfAttention):
        attention.__class__ = OpenSelfAttention
        attention.add_module("projected", ProjectedTokens())


def open_rows(encoder: nn.Module, block: nn.Module) -> None:
    """Let the text transformer mark padding, and the block compute every token."""
    for module in encoder.modules():
        if type(module) is TextTransformer:
            module.__class__ = MarkingTextTransformer
    if type(block) is ResidualBlock:
        block.__class__ = WholeBlock


def grouped_rows(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rows:
    """Rows of an attention that is called with tokens and marked groups."""
    groups: MarkedGroups = args[1]
    return GroupedRows(tuple(groups), groups.valid)


TEXT_BLOCK = Kind(
    attention="attn",
    heads="heads",
    query_key_value=fused("attn", seen_at="attn.projected", weight="in_proj_weight", bias="in_proj_bias"),
    intermediate=Linear("mlp.c_fc"),
    attention_end="attn",
    ffn_end="mlp",
    ffn="mlp",
    rows=grouped_rows,
    open_projections=open_attention,
    open_prefix=open_attention,
    open_gates=open_rows,
)
KINDS = {"hypvl.encoders.text.ResidualBlock": TEXT_BLOCK}
