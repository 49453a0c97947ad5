"""Which form a contrastive term takes: whole score matrices, or tiles of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from hypvl.geometry.tiles import Factored
from hypvl.losses.base import Model, View

Implementation: TypeAlias = Literal["auto", "dense", "tiled"]

# Scores of a matrix from which on its tiles are faster than the whole.
TILED_FROM = 2**22


@dataclass(frozen=True)
class Tiling:
    """The choice of a term.

    Args:
        implementation: ``"dense"`` holds each score matrix, ``"tiled"`` computes it tile by tile, with memory linear
            in the batch and one matrix for both directions of a pair (scores that are no function of one inner product
            stay dense); ``"auto"`` = tiled where a matrix has 2^22 scores or more.
        tile: Rows and columns of a tile; None = what suits the device.

    Raises:
        ValueError: for another implementation, or a tile that is not two numbers of at least 1.
    """

    implementation: Implementation = "auto"
    tile: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.implementation not in ("auto", "dense", "tiled"):
            raise ValueError(
                f"implementation: got {self.implementation!r}; expected 'auto', 'dense' or 'tiled'."
            )
        if self.tile is not None and not _is_size(self.tile):
            raise ValueError(
                f"tile: got {self.tile!r}; expected the rows and columns of a tile, two whole numbers of at least 1."
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """The tile as the tiled form takes it."""
        return None if self.tile is None else (self.tile[0], self.tile[1])

    def chosen(self, rows: int, columns: int) -> bool:
        """Whether tiles are asked for where there are so many rows and columns."""
        return self.implementation == "tiled" or (
            self.implementation == "auto" and rows * columns >= TILED_FROM
        )

    def scores(
        self, model: Model, queries: Tensor, keys: Tensor, *, query: View, key: View
    ) -> Factored | None:
        """The scores of (B, D) and (N, D) embeddings of two views for the tiled form, None for the dense one."""
        if not self.chosen(len(queries), len(keys)):
            return None
        found = model.scorer.factored_logits(
            model.geometry, queries, keys, query_modality=query.modality, key_modality=key.modality
        )
        if found is None and self.implementation == "tiled":
            warnings.warn(
                f"implementation='tiled': {type(model.scorer).__name__} in {type(model.geometry).__name__} is not a "
                "function of one inner product, so whole score matrices are held; leave implementation at 'auto', or "
                "take another geometry.",
                stacklevel=2,
            )
        return found


def _is_size(tile: object) -> bool:
    return (
        isinstance(tile, Sequence)
        and len(tile) == 2
        and all(type(size) is int and 1 <= size < 2**31 for size in tile)
    )
