"""SimReg: the features of a student are regressed onto those of a teacher."""

import itertools
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, one_of, whole_number
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import Model, PairContext, View, find_encoder
from hypvl.losses.batch_norm import BatchNorm
from hypvl.losses.distillation import Distillation
from hypvl.numerics import full_precision

Distance: TypeAlias = Literal["squared", "l1", "smooth_l1"]
Variant: TypeAlias = Literal["original", "itra"]


@full_precision
def sim_reg(
    student: Tensor, teacher: Tensor, *, distance: Distance = "squared", variant: Variant = "original"
) -> Tensor:
    """Mean over rows of the distance of directions.

    Formula: ``mean_i sum_d f(n(s_i)_d - n(t_i)_d)``, n(x) = x / |x|; f(x) is x^2 (the sum is then 2 - 2 cos), |x|, or
    the smooth one (x^2 / 2 up to 1). ``itra`` takes the mean over d instead of the sum.

    Args:
        student, teacher: (B, D).
        distance: f.
        variant: The mean over d is 1 / D of the original.

    Returns:
        0-dim, >= 0.

    Source: SimReg (Navaneet et al. 2021, arXiv 2201.05131), section 3: squared; the others: ITRA.

    Example:
        >>> sim_reg(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(0.)
    """
    one_of("distance", distance, Distance)
    one_of("variant", variant, Variant)
    terms = normalize(student) - normalize(teacher)  # (B, D)
    if distance == "squared":
        terms = terms.square()
    elif distance == "l1":
        terms = terms.abs()
    else:
        terms = F.smooth_l1_loss(terms, torch.zeros_like(terms), reduction="none")
    return (terms.sum(-1) if variant == "original" else terms.mean(-1)).mean()


@configurable("train")
class Predictor(nn.Module):
    """``Linear, batch norm, ReLU`` for each hidden layer, then ``Linear``: (B, in_features) -> (B, out_features).

    It belongs to the objective and is no part of the model: trained, and dropped afterwards. Its batch norms take the
    statistics of the batch on all ranks and keep no running ones, so that nothing changes in ``forward``.

    Args:
        in_features: Size of the student's features.
        out_features: Size of the teacher's; it may be another one.
        layers: Number of linear layers, >= 1.
        hidden: Width of the hidden layers.

    Source: SimReg (arXiv 2201.05131), section 3. Open: depth and width.
    """

    def __init__(self, in_features: int, out_features: int, *, layers: int = 2, hidden: int = 2048) -> None:
        super().__init__()
        self.in_features = whole_number("in_features", in_features, least=1, most=MOST_FEATURES)
        self.out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        whole_number("layers", layers, least=1, most=64)
        whole_number("hidden", hidden, least=1, most=MOST_FEATURES)
        widths = [self.in_features, *[hidden] * (layers - 1), self.out_features]
        self.linears = nn.ModuleList(
            [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
        )
        self.norms = nn.ModuleList([BatchNorm(hidden) for _ in range(layers - 1)])

    def forward(self, x: Tensor) -> Tensor:
        """Predict the features of the teacher; rows of every rank count for the batch norms."""
        x = x.to(next(self.parameters()).dtype)
        for linear, norm in zip(self.linears, self.norms, strict=False):
            x = norm(linear(x)).relu()
        return self.linears[-1](x)


@configurable("train")
class SimReg(Distillation):
    """:func:`sim_reg` of the rows of this rank.

    Args:
        student, teacher, detach_teacher: As :class:`~hypvl.losses.distillation.Distillation`.
        distance, variant: As :func:`sim_reg`.
        predictor: Predicts the teacher's features from the student's, such as :class:`Predictor`; None = the student's
            features themselves are compared.

    Source: SimReg (arXiv 2201.05131).
    """

    rings = True

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        distance: Distance = "squared",
        variant: Variant = "original",
        predictor: nn.Module | None = None,
        detach_teacher: bool = True,
    ) -> None:
        one_of("distance", distance, Distance)
        one_of("variant", variant, Variant)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.distance = distance
        self.variant = variant
        self.predictor = predictor

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse features of different sizes, and a predictor for others."""
        if self.predictor is None:
            super().check(models)
            return
        for view, name in ((self.student, "in_features"), (self.teacher, "out_features")):
            size = getattr(find_encoder(models, view), "embed_dim", None)
            width = getattr(self.predictor, name, None)
            if size is not None and width is not None and width != size:
                raise ValueError(
                    f"predictor.{name}: got {width}, but the features of {view} have size {size}; give it that number."
                )

    def forward(self, ctx: PairContext) -> Tensor:
        student, teacher = self.features(ctx)
        if self.predictor is not None:
            student = self.predictor(student)
        return sim_reg(student, teacher, distance=self.distance, variant=self.variant)
