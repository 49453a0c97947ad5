"""Where adapters sit in a transformer block, for each kind of block: a table, not questions about classes.

To add a kind, write its :class:`Kind` and put it into a table of ``towers`` under the name of the block's class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.encoders.adapters.gate import PaddedRows, Rows

ProjectionName: TypeAlias = Literal["query", "key", "value", "intermediate"]
Opener: TypeAlias = Callable[[nn.Module, nn.Module], None]


@dataclass(frozen=True)
class Linear:
    """A linear map of a block: a module, or a third of one that computes queries, keys and values.

    Attributes:
        path: Of the module with the weight, inside the block.
        third: 0, 1 or 2 where the outputs are one of three equal parts.
        weight, bias: Names of the parameters.
        transposed: Whether the weight is (in, out).
        seen_at: Path of the module whose first input is x and whose output is y; None = ``path``.
    """

    path: str
    third: int | None = None
    weight: str = "weight"
    bias: str = "bias"
    transposed: bool = False
    seen_at: str | None = None

    def parameters(self, block: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight (out, in) and bias (out,) in a block: views of the parameters."""
        module = block.get_submodule(self.path)
        weight, bias = getattr(module, self.weight), getattr(module, self.bias)
        weight = weight.T if self.transposed else weight
        if self.third is None:
            return weight, bias
        return weight.chunk(3)[self.third], None if bias is None else bias.chunk(3)[self.third]

    def seen(self, block: nn.Module) -> nn.Module:
        """The module to hook."""
        return block.get_submodule(self.path if self.seen_at is None else self.seen_at)


def nothing_to_open(encoder: nn.Module, block: nn.Module) -> None:
    """The block is ready as it is."""


def all_valid(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rows:
    """Rows without padding."""
    return PaddedRows()


@dataclass(frozen=True)
class Kind:
    """The places of a kind of block; paths are those of modules inside it.

    Attributes:
        attention: Self-attention, whose first input is that of its sub-layer.
        heads: Name of its attribute with the number of heads.
        query_key_value: Projections of attention.
        intermediate: The first projection of the feed-forward sub-layer.
        attention_end, ffn_end: Modules whose output is the end h of the sub-layer's residual branch.
        attention_norm, ffn_norm: In a post-norm block the norms of h + r; None in a pre-norm block.
        ffn: A module that maps the input of the feed-forward sub-layer to h; or
        ffn_residual: the one that adds its second input, which is that input too.
        rows: How the tokens are arranged, of the arguments of the attention.
        open_projections, open_prefix, open_gates: Prepare a block of an encoder for such parts.
    """

    attention: str
    heads: str
    query_key_value: tuple[Linear, Linear, Linear]
    intermediate: Linear
    attention_end: str
    ffn_end: str
    attention_norm: str | None = None
    ffn_norm: str | None = None
    ffn: str | None = None
    ffn_residual: str | None = None
    rows: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Rows] = all_valid
    open_projections: Opener = nothing_to_open
    open_prefix: Opener = nothing_to_open
    open_gates: Opener = nothing_to_open

    def projection(self, name: ProjectionName) -> Linear:
        """The projection of a name."""
        one_of("name", name, ProjectionName)
        query, key, value = self.query_key_value
        return {"query": query, "key": key, "value": value, "intermediate": self.intermediate}[name]


def fused(
    path: str,
    *,
    seen_at: str | None = None,
    transposed: bool = False,
    weight: str = "weight",
    bias: str = "bias",
) -> tuple[Linear, Linear, Linear]:
    """The query, key and value projections of one module; arguments are those of :class:`Linear`."""
    query, key, value = (
        Linear(path, third, weight=weight, bias=bias, transposed=transposed, seen_at=seen_at)
        for third in range(3)
    )
    return query, key, value
