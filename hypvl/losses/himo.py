"""HiMo: images are also contrasted with texts of which only the leading principal directions are kept."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.losses.base import IMAGE, TEXT, Model, PairContext, PairTerm, View, check_scale
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce
from hypvl.numerics import full_precision, working_dtype


@full_precision
def leading_directions(x: Tensor, *, share: float = 0.9) -> Tensor:
    """Rows rebuilt from the fewest principal directions that hold a share of their variance.

    Formula: ``(x - m) V V^T + m`` with the mean m of the rows, and as columns of V the right singular vectors of
    ``x - m`` up to the first one at which the sum of their squared singular values is ``share`` of the whole.

    Args:
        x: (N, D).
        share: In (0, 1]; 1 gives ``x`` back.

    Returns:
        (N, D). No gradient flows through V.

    Source: HiMo-CLIP (2025), as Hyper3-CLIP's package has it (PyPI hyper_models 0.4.0).

    Example:
        >>> x = torch.tensor([[10.0, 0.1], [-10.0, -0.1], [5.0, -0.1]])
        >>> leading_directions(x).shape
        torch.Size([3, 2])
    """
    mean = x.mean(0)
    centred = x - mean
    fixed = centred.detach().to(working_dtype(x.device))
    fixed = torch.where(
        fixed.isfinite(), fixed, 0.0
    )  # which the decomposition refuses; the result shows them
    fixed = fixed / fixed.abs().max().clamp(min=torch.finfo(x.dtype).tiny)  # so that no square overflows
    _, values, directions = torch.linalg.svd(fixed, full_matrices=False)  # (K,), (K, D)
    variance = values.square()
    before = (variance.cumsum(0) - variance) / variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    kept = (directions * (before < share)[:, None]).to(x.dtype)  # (K, D)
    return centred @ kept.mT @ kept + mean


@configurable("train")
class PrincipalContrastive(PairTerm):
    """Contrastive loss of images and of texts that are rebuilt by :func:`leading_directions`.

    Formula: ``(CE(images -> rebuilt texts) + CE(rebuilt texts -> images)) / 2``. What a caption says beside the main
    directions of its batch then counts less: long captions of much detail and short ones meet in the same place.

    The features of the texts of every rank are rebuilt, then lifted.

    Args:
        first, second: Views of the images and of the texts, which are rebuilt.
        share: As :func:`leading_directions`.
        scale: Name of the scorer's scale that multiplies the scores; None = its own.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: HiMo-CLIP (2025), as Hyper3-CLIP's package has it, where its weight is 0.
        Open: whether features or points of the hyperboloid are rebuilt; in a flat space they are the same.
    """

    def __init__(
        self,
        *,
        first: str | View = IMAGE,
        second: str | View = TEXT,
        share: float = 0.9,
        scale: str | None = None,
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        check_implementation(implementation, tile)
        super().__init__(first=first, second=second)
        self.share = number("share", share, above=0, most=1)
        self.scale = scale
        self.implementation, self.tile = implementation, tile

    def check(self, models: Mapping[str, Model]) -> None:
        super().check(models)
        check_scale(models, self.scale)

    def forward(self, ctx: PairContext) -> Tensor:
        rebuilt = leading_directions(ctx.features(self.second, gathered=True), share=self.share)  # (N, D)
        texts = ctx.model_of(self.second).embed(rebuilt, modality=self.second.modality)
        other = ctx.with_embeddings(self.second, texts[ctx.targets(self.second)], texts)
        both = info_nce(
            other,
            self.first,
            self.second,
            both_directions=True,
            scale=self.scale,
            implementation=self.implementation,
            tile=self.tile,
        )
        return both.mean()
