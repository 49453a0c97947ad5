"""CLIP-style causal transformer for text.

Texts of different lengths go through it in one pass: sorted by length and cut into groups, each padded to its longest
text. The tokens of all groups are concatenated to one matrix (T, W): linear layers and norms run once, on hardly any
padding. Attention takes each group as a plain (rows, length) batch, without copies or masks.
"""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.data.tokenizer import Tokenizer
from hypvl.errors import ConfigError

Activation: TypeAlias = Literal["gelu", "quick_gelu"]
#: (rows, length) of each group, shortest first; a group is rows * length tokens, row after row.
Groups: TypeAlias = Sequence[tuple[int, int]]

_ARCH = re.compile(r"L(?P<layers>\d+)_W(?P<width>\d+)(?:_A(?P<heads>\d+))?")


def parse_arch(arch: str) -> tuple[int, int, int]:
    """Layers, width and heads of a name such as ``L12_W512`` or ``L12_W512_A8``.

    Without ``_A`` there is one head per 64 channels.

    Raises:
        ConfigError: When the name does not read so, or the heads do not divide the width.
    """
    match = _ARCH.fullmatch(str(arch))
    if match is None:
        raise ConfigError(
            f"textual.arch is {arch!r}, but it must read L<layers>_W<width> or L<layers>_W<width>_A<heads>, "
            f"for example L12_W512."
        )
    layers, width = int(match["layers"]), int(match["width"])
    if match["heads"] is None and width % 64:
        raise ConfigError(
            f"textual.arch is {arch!r}, whose width is not a multiple of 64, so say the number of heads too, "
            f"for example {arch}_A4."
        )
    heads = width // 64 if match["heads"] is None else int(match["heads"])
    if layers < 1 or width < 1 or heads < 1 or width % heads:
        raise ConfigError(
            f"textual.arch is {arch!r} ({layers} layers, width {width}, {heads} heads), but all must be at "
            f"least 1 and the heads must divide the width."
        )
    return layers, width, heads


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention of each token to itself and earlier tokens, without an (L, L) mask.

    Parameter names and layouts are those of ``torch.nn.MultiheadAttention``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """Attend within each text: (T, W), the tokens of the groups one after the other -> (T, W)."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (T, 3W)
        return self.out_proj(self._attend(qkv, groups))

    @torch.compiler.disable  # groups differ from batch to batch; the rest compiles once for any T
    def _attend(self, qkv: Tensor, groups: Groups) -> Tensor:
        attended = []
        for part in split_groups(qkv, groups):  # (B, L, 3W)
            query, key, value = part.unflatten(-1, (3, self.heads, -1)).permute(
                2, 0, 3, 1, 4
            )  # (B, A, L, W/A)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, A, L, W/A)
            attended.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))  # (B L, W)
        return torch.cat(attended)


class MLP(nn.Module):
    """Two layers with a GELU between them, exact or as x sigmoid(1.702 x); the hidden one is four times as wide."""

    def __init__(self, width: int, *, activation: Activation = "gelu") -> None:
        one_of("activation", activation, Activation)
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: (..., W) -> (..., W)."""
        hidden = self.c_fc(x)
        if self.activation == "quick_gelu":
            return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        return self.c_proj(F.gelu(hidden))


class ResidualBlock(nn.Module):
    """Pre-norm transformer block; ``dropout`` acts on the output of attention and of the MLP."""

    def __init__(
        self, width: int, heads: int, *, activation: Activation = "gelu", dropout: float = 0.0
    ) -> None:
        one_of("activation", activation, Activation)
        super().__init__()
        self.attn = CausalSelfAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation=activation)
        self.ln_2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, groups: Groups, kept: Tensor | None = None) -> Tensor:
        """One block: (T, W), the tokens of the groups one after the other -> (T, W), or (B, W) of those ``kept``.

        ``kept`` are (B,) indices of the tokens to compute after attention; None = all. The last block computes only the
        tokens that are read out.
        """
        x = x + self.dropout(self.attn(self.ln_1(x), groups))
        if kept is not None:
            x = x[kept]  # (B, W)
        return x + self.dropout(self.mlp(self.ln_2(x)))


def read_out_positions(tokens: Tensor, *, eot_token: int) -> Tensor:
    """Index of the token that represents a text, its first end-of-text token: (B, L) -> (B,), without a device sync.

    A row without that token (our tokenizer makes none) is read at its last token that is not padding, which attends
    to the whole text; a row of padding only is read at 0.
    """
    is_end = tokens == eot_token  # (B, L)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(tokens != 0, places, 0).amax(dim=1)  # (B,)
    return torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1), last)


def group_cost(device: torch.device) -> int:
    """Cost of one more group (calls of attention and its gradient), in tokens of padding that take as long.

    On a CPU a call takes the time of a token or two; on a GPU a token takes far less time than the start of a kernel.
    """
    return 4 if device.type == "cpu" else 256


def plan_groups(lengths: Sequence[int] | np.ndarray, *, cost: int) -> list[tuple[int, int]]:
    """The cheapest cut of texts, sorted by length, into groups: (rows, length) of each, shortest first.

    Formula: minimises ``sum over groups of (rows * longest + cost)``.

    Args:
        lengths: Tokens of each text, on the host, in any order; ValueError for none, or one below 1.
        cost: Of a group, in tokens.
    """
    distinct, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    if not len(distinct) or distinct[0] < 1:
        raise ValueError(
            f"lengths: got {list(lengths)}; expected a number of tokens of at least 1 for each text."
        )
    before = np.concatenate([[0], np.cumsum(counts)])  # texts shorter than each length, and all of them
    best = np.zeros(len(before), dtype=np.int64)  # cost of the texts up to each length
    start = np.zeros(len(before), dtype=np.int64)  # where the last of their groups begins
    for end in range(1, len(before)):
        costs = best[:end] + (before[end] - before[:end]) * distinct[end - 1]
        start[end] = costs.argmin()
        best[end] = costs[start[end]] + cost
    groups: list[tuple[int, int]] = []
    end = len(distinct)
    while end:
        begin = int(start[end])
        groups.append((int(before[end] - before[begin]), int(distinct[end - 1])))
        end = begin
    return groups[::-1]


def split_groups(x: Tensor, groups: Groups) -> list[Tensor]:
    """The groups of a matrix: (T, ...) -> views (rows, length, ...)."""
    parts = x.split([rows * length for rows, length in groups])
    return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]


def join_rows(x: Tensor, order: Tensor, groups: Groups) -> Tensor:
    """A padded matrix (B, L), its rows in an order (B,) that begins with the shortest, as groups: (T,)."""
    rows = order.split([rows for rows, _ in groups])
    return torch.cat([x[row, :length].flatten() for row, (_, length) in zip(rows, groups, strict=True)])


def row_starts(order: Tensor, groups: Groups) -> Tensor:
    """Index of the first of the T tokens of each row of the padded matrix, (B,)."""
    starts: list[Tensor] = []
    offset = 0
    for rows, length in groups:
        starts.append(torch.arange(offset, offset + rows * length, length, device=order.device))
        offset += rows * length
    return torch.cat(starts)[order.argsort()]


def check_fit(ends: Tensor, groups: Groups) -> None:
    """RuntimeError where a text, whose last token is at ``ends`` (B,), shortest first, does not fit into its group.

    On a CPU at once; on a GPU when the check has run, which this does not wait for.
    """
    last = torch.stack([part.amax() for part in ends.split([rows for rows, _ in groups])])  # (G,)
    limit = torch.cat([last.new_full((1,), length) for _, length in groups])  # (G,)
    torch._assert_async(
        (last < limit).all(), "lengths: a text is longer than they say; give none, or the right ones."
    )


@configurable("model")
class TextTransformer(nn.Module):
    """Causal pre-norm transformer over token ids, read out at the first end-of-text token.

    Texts are padded at the end only, and no token attends to later ones: padding never changes the features, and
    hardly any of it is computed. State-dict names are the published ones, without their materialised mask.

    Args:
        arch: ``L<layers>_W<width>``, with ``_A<heads>`` where there is not one head per 64 channels.
        vocab_size: Number of token ids.
        context_length: Longest text in tokens, start and end included.
        eot_token: Id of end-of-text; None = the last of the vocabulary.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its activations.
        fixed_positions: None = one trainable table of positions, ``posit_embed``. A number = two tables, equal at the
            start: the first so many positions come from ``posit_embed``, which is frozen, the others from the
            trainable ``posit_embed_res``.
        activation: ``"quick_gelu"`` for the weights that OpenAI published, ``"gelu"`` for most others.
        dropout: Share of the embedded tokens' entries and of each residual branch's that is zeroed in training, in
            [0, 1). CLIP has none; SimCSE needs some, to tell two views of one text apart.

    Source: CLIP (Radford et al. 2021), section 2.4; initialisation as published with it. The two tables: Long-CLIP,
        Zhang et al. 2024 (arXiv 2403.15378), whose number is 20.
    """

    def __init__(
        self,
        arch: str = "L12_W512",
        *,
        vocab_size: int = 49408,
        context_length: int = 77,
        eot_token: int | None = None,
        grad_checkpointing: bool = False,
        fixed_positions: int | None = None,
        activation: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.width, self.heads = parse_arch(arch)
        one_of("activation", activation, Activation)
        self.vocab_size = vocab_size = whole_number("vocab_size", vocab_size, least=2, most=2**31 - 1)
        self.context_length = whole_number("context_length", context_length, least=2, most=2**20)
        last = vocab_size - 1
        self.eot_token = (
            last if eot_token is None else whole_number("eot_token", eot_token, least=1, most=last)
        )
        if fixed_positions is not None:
            whole_number("fixed_positions", fixed_positions, least=0, most=self.context_length)
        self.fixed_positions = fixed_positions
        self.dropout = nn.Dropout(number("dropout", dropout, least=0, below=1))
        self.grad_checkpointing = grad_checkpointing

        self.token_embed = nn.Embedding(vocab_size, self.width)
        self.posit_embed = nn.Parameter(torch.empty(self.context_length, self.width))
        if fixed_positions is not None:
            self.posit_embed.requires_grad_(False)
            self.posit_embed_res = nn.Parameter(torch.empty(self.context_length, self.width))
        self.resblocks = nn.ModuleList(
            [
                ResidualBlock(self.width, self.heads, activation=activation, dropout=dropout)
                for _ in range(self.layers)
            ]
        )
        self.ln_final = nn.LayerNorm(self.width)
        self.reset_parameters()

    @property
    def tokenizer(self) -> Tokenizer:
        """CLIP's, at this context length: what all published models of this kind take."""
        return Tokenizer(self.context_length)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights: residual outputs are smaller the deeper the network is."""
        std = self.width**-0.5
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.posit_embed, std=0.01)
        if self.fixed_positions is not None:
            self.posit_embed_res.copy_(self.posit_embed)
        for block in self.resblocks:
            assert isinstance(block, ResidualBlock)
            nn.init.normal_(block.attn.in_proj_weight, std=std)
            nn.init.normal_(block.attn.out_proj.weight, std=std * (2 * self.layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * self.width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=std * (2 * self.layers) ** -0.5)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off."""
        self.grad_checkpointing = enable

    def positions(self, length: int) -> Tensor:
        """Positions of the first ``length`` tokens, (length, width), which are added to them."""
        if self.fixed_positions is None:
            return self.posit_embed[:length]
        fixed = min(self.fixed_positions, length)
        return torch.cat((self.posit_embed[:fixed], self.posit_embed_res[fixed:length]))

    def forward(self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Encode token ids.

        Args:
            tokens: Integers (B, L) with 1 <= L <= ``context_length``, padded with 0 at the end.
            lengths: (B,) tokens of each text, end-of-text included, on the host: knowing them there avoids both
                padding and a wait for the device. None = read from tokens on the CPU; tokens on another device are
                computed with their padding.

        Returns:
            Trunk features (B, width), after the last LayerNorm; see :func:`read_out_positions`.

        Raises:
            ValueError: When the shape is not (B, L), a row is longer than ``context_length``, or ``lengths`` are not B
                numbers of 1 to L.
            TypeError: When tokens are not a tensor of integers: texts go through a tokenizer first.
            RuntimeError: When a text is longer than ``lengths`` says.
        """
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
            got = (
                f"have dtype {tokens.dtype}"
                if isinstance(tokens, Tensor)
                else f"are a {type(tokens).__name__}"
            )
            raise TypeError(
                f"tokens {got}, but a tensor (B, L) of int64 is expected: texts go through hypvl.get_tokenizer()."
            )
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, but (B, L) with L >= 1 is expected.")
        if tokens.shape[1] > self.context_length:
            raise ValueError(
                f"tokens are {tokens.shape[1]} long, but the context length is {self.context_length}: truncate them "
                f"(the tokenizer's context_length) or build the model with a longer context."
            )
        x, groups, read_out = self._lay_out(tokens, lengths)
        x = self.dropout(x)
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for i, block in enumerate(self.resblocks, start=1):
            kept = read_out if i == self.layers else None
            x = (
                checkpoint(block, x, groups, kept, use_reentrant=False)
                if recompute
                else block(x, groups, kept)
            )
        return self.ln_final(x)  # (B, W)

    @torch.compiler.disable  # as attention
    def _lay_out(
        self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None
    ) -> tuple[Tensor, Groups, Tensor]:
        """Embedded tokens (T, W), group after group; the groups; which of the T each text is read at, (B,).

        Nothing here waits for a device.
        """
        ends = read_out_positions(tokens, eot_token=self.eot_token)  # (B,)
        order = ends.argsort()  # (B,) shortest first, as the groups are
        groups = self._plan(tokens, ends, lengths)
        if lengths is not None:
            check_fit(ends[order], groups)
        ids = join_rows(tokens, order, groups)  # (T,)
        places = [self.positions(length).repeat(rows, 1) for rows, length in groups]
        return self.token_embed(ids) + torch.cat(places), groups, row_starts(order, groups) + ends

    def _plan(self, tokens: Tensor, ends: Tensor, lengths: Sequence[int] | np.ndarray | None) -> Groups:
        """How the texts are cut into groups: one group where a graph is recorded, which must work for any texts."""
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            return [(tokens.shape[0], tokens.shape[1])]
        if lengths is None and (tokens.device.type != "cpu" or len(tokens) == 0):
            return [(tokens.shape[0], tokens.shape[1])]
        if lengths is None:
            lengths = (ends + 1).numpy()
        elif len(lengths) != len(tokens) or not 1 <= min(lengths) <= max(lengths) <= tokens.shape[1]:
            raise ValueError(
                f"lengths are {len(lengths)} numbers from {min(lengths, default=0)} to {max(lengths, default=0)}, but "
                f"{len(tokens)} numbers from 1 to {tokens.shape[1]} are expected, one for each row of tokens."
            )
        return plan_groups(lengths, cost=group_cost(tokens.device))
