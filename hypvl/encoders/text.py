"""CLIP-style transformer for text.

Texts of different lengths go through it in one pass: sorted by length and cut into groups, each padded to its longest
text. The tokens of all groups are concatenated to one matrix (T, W): linear layers and norms run once, on hardly any
padding. Attention takes each group as a plain (rows, length) batch, without copies or masks. Where tokens attend to
later ones, or the last position is read out, padding counts as text, as published: all texts are one group then.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.data.tokenizer import Tokenizer
from hypvl.encoders.prompt_vectors import PromptVectors
from hypvl.errors import ConfigError

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu"]
ReadOut: TypeAlias = Literal["end_of_text", "first", "last", "largest_id"]
#: (rows, length) of each group, shortest first; a group is rows * length tokens, row after row.
Groups: TypeAlias = Sequence[tuple[int, int]]

_ARCH = re.compile(r"L(?P<layers>\d{1,9})_W(?P<width>\d{1,9})(?:_A(?P<heads>\d{1,9}))?")
_MOST_LAYERS, _WIDEST = 1000, 65_536


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
    if layers > _MOST_LAYERS or width > _WIDEST:
        raise ConfigError(
            f"textual.arch is {arch!r} ({layers} layers, width {width}); expected at most {_MOST_LAYERS} layers and a "
            f"width of at most {_WIDEST}."
        )
    if layers < 1 or width < 1 or heads < 1 or width % heads:
        raise ConfigError(
            f"textual.arch is {arch!r} ({layers} layers, width {width}, {heads} heads), but all must be at "
            f"least 1 and the heads must divide the width."
        )
    return layers, width, heads


class SelfAttention(nn.Module):
    """Multi-head self-attention of each token to itself and earlier tokens, without an (L, L) mask.

    Parameter names and layouts are those of ``torch.nn.MultiheadAttention``.

    Args:
        width: W, a multiple of ``heads``.
        heads: A.
        causal: False = to all tokens of the text.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
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
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)  # (B, A, L, W/A)
            attended.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))  # (B L, W)
        return torch.cat(attended)


class MLP(nn.Module):
    """Two layers with a GELU between them: exact, by tanh, or as x sigmoid(1.702 x).

    The hidden one has ``int(ratio * width)`` channels.
    """

    def __init__(self, width: int, *, activation: Activation = "gelu", ratio: float = 4.0) -> None:
        one_of("activation", activation, Activation)
        super().__init__()
        self.activation = activation
        hidden = int(ratio * width)
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: (..., W) -> (..., W)."""
        hidden = self.c_fc(x)
        if self.activation == "quick_gelu":
            return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        return self.c_proj(F.gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class ResidualBlock(nn.Module):
    """Pre-norm transformer block; its arguments are those of :class:`TextTransformer`.

    ``dropout`` acts on the output of attention and of the MLP.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
        causal: bool = True,
    ) -> None:
        one_of("activation", activation, Activation)
        super().__init__()
        self.attn = SelfAttention(width, heads, causal=causal)
        self.ln_1 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, activation=activation, ratio=mlp_ratio)
        self.ln_2 = nn.LayerNorm(width, eps=norm_eps)
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


def check_tokens(tokens: Tensor, context_length: int) -> None:
    """TypeError for anything but a tensor of integers; ValueError unless it is (B, L), 1 <= L <= context_length."""
    if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
        got = f"have dtype {tokens.dtype}" if isinstance(tokens, Tensor) else f"are a {type(tokens).__name__}"
        raise TypeError(
            f"tokens {got}, but a tensor (B, L) of int64 is expected: texts go through hypvl.get_tokenizer()."
        )
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}, but (B, L) with L >= 1 is expected.")
    if tokens.shape[1] > context_length:
        raise ValueError(
            f"tokens are {tokens.shape[1]} long, but the context length is {context_length}: truncate them "
            f"(the tokenizer's context_length) or build the model with a longer context."
        )


def pad_texts(tokens: Tensor, length: int, *, pad_token: int) -> Tensor:
    """Rows of ``length`` tokens: (B, L) -> (B, length), with ``pad_token`` also for the zeros after a text."""
    tokens = F.pad(tokens, (0, length - tokens.shape[1]))
    if pad_token == 0:
        return tokens
    places = torch.arange(length, device=tokens.device)
    last = torch.where(tokens != 0, places, -1).amax(dim=1, keepdim=True)  # (B, 1)
    return torch.where(places > last, pad_token, tokens)


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
    """Pre-norm transformer over token ids, by default causal and read out at the first end-of-text token.

    Texts are padded at the end only, and no token attends to later ones: padding never changes the features, and
    hardly any of it is computed. State-dict names are the published ones, without their materialised mask.

    With ``causal=False`` or ``read_out="last"`` (SigLIP, CLIPA, MobileCLIP) texts are padded to the context length with
    ``pad_token``, and the padding is part of them.

    Args:
        arch: ``L<layers>_W<width>``, with ``_A<heads>`` where there is not one head per 64 channels.
        vocab_size: Number of token ids.
        context_length: Longest text in tokens, start and end included.
        eot_token: Id of end-of-text; None = the last of the vocabulary.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its activations.
        fixed_positions: None = one trainable table of positions, ``posit_embed``. A number = two tables, equal at the
            start: the first so many positions come from ``posit_embed``, which is frozen, the others from the
            trainable ``posit_embed_res``.
        activation: ``"quick_gelu"`` for the weights that OpenAI published, ``"gelu_tanh"`` for those of SigLIP 2,
            ``"gelu"`` for most others.
        dropout: Share of the embedded tokens' entries and of each residual branch's that is zeroed in training, in
            [0, 1). CLIP has none; SimCSE needs some, to tell two views of one text apart.
        mlp_ratio: Width of the hidden layer of a block, in units of the width.
        norm_eps: Epsilon of every LayerNorm.
        causal: Whether no token attends to later ones.
        read_out: The token that represents a text: ``"end_of_text"`` (see :func:`read_out_positions`), the
            ``"first"``, the ``"last"`` of the context, padding included, or the first one with the ``"largest_id"``.
        pad_token: Id that zeros after the text stand for; only where padding is part of it.
        prompt_vectors: Number of learned vectors between the start token and the text (CoOp), 0 = none; texts are
            shorter by so many tokens. See :class:`~hypvl.encoders.prompt_vectors.PromptVectors`.
        tokenizer: What makes the tokens, where it is another one than CLIP's; kept as an attribute.

    Source: CLIP (Radford et al. 2021), section 2.4; initialisation as published with it. The two tables: Long-CLIP,
        Zhang et al. 2024 (arXiv 2403.15378), whose number is 20. Prompt vectors: CoOp, Zhou et al. 2022
        (arXiv 2109.01134), section 3.2.
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
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
        causal: bool = True,
        read_out: ReadOut = "end_of_text",
        pad_token: int = 0,
        prompt_vectors: int = 0,
        tokenizer: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.width, self.heads = parse_arch(arch)
        one_of("activation", activation, Activation)
        self.causal = one_of("causal", causal, (True, False))
        self.read_out = one_of("read_out", read_out, ReadOut)
        mlp_ratio = number("mlp_ratio", mlp_ratio, least=1 / self.width, most=100)
        norm_eps = number("norm_eps", norm_eps, above=0, most=1)
        self.vocab_size = vocab_size = whole_number("vocab_size", vocab_size, least=2, most=2**31 - 1)
        places = whole_number("context_length", context_length, least=2, most=2**20)
        whole_number("prompt_vectors", prompt_vectors, least=0, most=places - 2)
        self.context_length = places - prompt_vectors
        last = vocab_size - 1
        self.eot_token = (
            last if eot_token is None else whole_number("eot_token", eot_token, least=1, most=last)
        )
        self.pad_token = whole_number("pad_token", pad_token, least=0, most=last)
        if fixed_positions is not None:
            whole_number("fixed_positions", fixed_positions, least=0, most=places)
        self.fixed_positions = fixed_positions
        self.dropout = nn.Dropout(number("dropout", dropout, least=0, below=1))
        self.grad_checkpointing = grad_checkpointing
        self.tokenizer = Tokenizer(self.context_length) if tokenizer is None else tokenizer

        self.token_embed = nn.Embedding(vocab_size, self.width)
        self.posit_embed = nn.Parameter(torch.empty(places, self.width))
        if fixed_positions is not None:
            self.posit_embed.requires_grad_(False)
            self.posit_embed_res = nn.Parameter(torch.empty(places, self.width))
        self.resblocks = nn.ModuleList(
            [
                ResidualBlock(
                    self.width, self.heads,
                    activation=activation, dropout=dropout, mlp_ratio=mlp_ratio, norm_eps=norm_eps, causal=causal,
                )
                for _ in range(self.layers)
            ]
        )  # fmt: skip
        self.ln_final = nn.LayerNorm(self.width, eps=norm_eps)
        self.reset_parameters()
        self.prompt = PromptVectors(prompt_vectors, self.width) if prompt_vectors else None

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
        check_tokens(tokens, self.context_length)
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
        whole = not self.causal or self.read_out == "last"
        if whole:
            tokens = pad_texts(tokens, self.context_length, pad_token=self.pad_token)
        if self.prompt is not None:
            tokens = self.prompt.insert(tokens)
            lengths = None if lengths is None else np.asarray(lengths) + self.prompt.count
        ends = self._read_out(tokens)  # (B,)
        order = ends.argsort()  # (B,) shortest first, as the groups are
        groups = [(tokens.shape[0], tokens.shape[1])] if whole else self._plan(tokens, ends, lengths)
        if lengths is not None and not whole:
            check_fit(ends[order], groups)
        ids = join_rows(tokens, order, groups)  # (T,)
        places = [self.positions(length).repeat(rows, 1) for rows, length in groups]
        embedded = self.token_embed(ids) if self.prompt is None else self.prompt.embed(ids, self.token_embed)
        return embedded + torch.cat(places), groups, row_starts(order, groups) + ends

    def _read_out(self, tokens: Tensor) -> Tensor:
        """Index of the token that represents each text, (B, L) -> (B,)."""
        if self.read_out == "end_of_text":
            return read_out_positions(tokens, eot_token=self.eot_token)
        if self.read_out == "largest_id":
            return tokens.argmax(dim=1)
        return tokens.new_full((tokens.shape[0],), 0 if self.read_out == "first" else tokens.shape[1] - 1)

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
