"""CLOOB: embeddings replaced by what a modern Hopfield network retrieves for them, compared by InfoLOOB."""

import math

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.scorers import LOG_SCALE_MAX
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import IMAGE, TEXT, PairContext, PairTerm, View
from hypvl.losses.info_nce import Implementation
from hypvl.losses.pairwise import by_queries, mean_over_queries, products
from hypvl.numerics import full_precision, inner_products


@full_precision
def retrieve(
    state: Tensor, stored: Tensor, *, beta: float, implementation: Implementation = "auto"
) -> Tensor:
    """The patterns that a modern Hopfield network retrieves for each state, on the unit sphere.

    Formula: ``normalise( softmax_rows(beta R S^T) S )``.

    Args:
        state: R, (B, D) unit rows.
        stored: S, (N, D) unit rows of patterns; a state that is itself among them is not left out.
        beta: Inverse temperature > 0: a large one gives the nearest pattern, one near 0 the mean of all.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        (B, D) unit rows; a retrieved row of 0 stays 0, with gradient 0.

    Source: Ramsauer et al. 2021 (arXiv 2008.02217), equation 3; CLOOB (arXiv 2110.11316), section 3.

    Example:
        >>> retrieve(torch.tensor([[0.8, 0.6]]), torch.eye(2), beta=100.0).round()  # the nearest one
        tensor([[1., 0.]])
    """

    def of(state: Tensor, stored: Tensor) -> Tensor:
        weights = torch.softmax(beta * inner_products(state, stored), dim=-1)  # (B, N)
        return normalize(inner_products(weights, stored.mT))

    return by_queries(of, state, stored, implementation=implementation)


@full_precision
def info_loob(
    anchor: Tensor,
    sample: Tensor,
    targets: Tensor,
    *,
    inv_tau: float | Tensor,
    implementation: Implementation = "auto",
) -> Tensor:
    """Contrastive loss whose denominator leaves out the positive.

    Formula: ``tau mean_i ( -a_i.b_i / tau + log sum_{j != i} exp(a_i.b_j / tau) )``, tau = 1 / inv_tau.

    Args:
        anchor: a, (B, D).
        sample: b, (N, D).
        targets: (B,) int64, row of each anchor's own sample.
        inv_tau: Inverse temperature > 0, a float or 0-dim.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        0-dim; may be negative. Without negatives (N = 1): ``-a_0.b_0``.

    Source: Fürst et al., CLOOB, 2022 (arXiv 2110.11316), section 3; leaving one out: Poole et al. 2019 (1905.06922).
    Differs: the positive is left out exactly; the published code puts -1000 in its place.

    Example:
        >>> x = torch.eye(3)
        >>> info_loob(x, x, torch.arange(3), inv_tau=1.0)  # -1 + log(2 exp(0))
        tensor(-0.3069)
    """
    one_of("implementation", implementation, Implementation)
    return mean_over_queries(
        _info_loob,
        products(anchor, sample),
        rows=[targets],
        others=[torch.as_tensor(inv_tau, dtype=anchor.dtype, device=anchor.device)],
        implementation=implementation,
    )


def _info_loob(products: Tensor, targets: Tensor, inv_tau: Tensor) -> Tensor:
    own = targets[:, None]
    positive = products.gather(1, own).squeeze(1)  # (B,)
    if products.shape[1] == 1:
        return -positive.mean()
    negatives = (inv_tau * products).scatter(1, own, -math.inf)
    return (negatives.logsumexp(1) / inv_tau - positive).mean()


@configurable("train")
class CLOOB(PairTerm):
    """InfoLOOB on Hopfield retrievals: ``InfoLOOB(U_xx, U_xy) + InfoLOOB(U_yy, U_yx)``.

    ``U_xy`` are the patterns that the texts y retrieve among the images x, and so on: the embeddings of each modality
    are states, and those of every rank are stored patterns. The formula is for unit vectors; off the sphere these are
    the directions of the embeddings from the root. The scale of the scorer is not used.

    Args:
        first, second: Views x and y.
        beta: Inverse temperature of the retrieval.
        inv_tau: Inverse temperature of InfoLOOB, or where it starts; published: 14.3 by default, 30 with beta 8.
        learn_inv_tau: Whether it is learned.
        log_inv_tau_max: Upper bound of its log; :meth:`constrain_` keeps it in [0, log_inv_tau_max].
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Raises:
        ValueError: for temperatures out of range, or another implementation.

    Source: CLOOB (arXiv 2110.11316), section 3. As published, a sample is among the patterns stored for itself.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_inv_tau"})

    def __init__(
        self,
        *,
        first: str | View = IMAGE,
        second: str | View = TEXT,
        beta: float = 14.3,
        inv_tau: float = 14.3,
        learn_inv_tau: bool = False,
        log_inv_tau_max: float = LOG_SCALE_MAX,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(first=first, second=second)
        self.implementation = one_of("implementation", implementation, Implementation)
        self.beta = number("beta", beta, above=0)
        self.log_inv_tau_max = number("log_inv_tau_max", log_inv_tau_max, least=0, most=80)
        number("inv_tau", inv_tau)
        if not (inv_tau >= 1 and math.log(inv_tau) <= log_inv_tau_max):
            raise ValueError(
                f"inv_tau: got {inv_tau}; expected 1 to {math.exp(log_inv_tau_max):g} = exp(log_inv_tau_max)."
            )
        self.log_inv_tau = nn.Parameter(torch.tensor(math.log(inv_tau)), requires_grad=learn_inv_tau)  # 0-dim

    def forward(self, ctx: PairContext) -> Tensor:
        x, y = (_directions(ctx, view) for view in (self.first, self.second))  # (B, D)
        all_x, all_y = (_directions(ctx, view, gathered=True) for view in (self.first, self.second))  # (N, D)
        way = self.implementation
        u_xx, u_xy = (retrieve(state, all_x, beta=self.beta, implementation=way) for state in (x, y))
        u_yy, u_yx = (retrieve(state, all_y, beta=self.beta, implementation=way) for state in (y, x))
        inv_tau, own = self.log_inv_tau.to(x.dtype).exp(), ctx.targets(self.first)
        image, text = (
            info_loob(u, distributed.gather(v), own, inv_tau=inv_tau, implementation=way)
            for u, v in ((u_xx, u_xy), (u_yy, u_yx))
        )
        return image + text

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp the log of the inverse temperature into [0, log_inv_tau_max], in place."""
        self.log_inv_tau.clamp_(min=0.0, max=self.log_inv_tau_max)


def _directions(ctx: PairContext, view: View, *, gathered: bool = False) -> Tensor:
    """Unit rows: the embeddings themselves on the sphere, else their directions from the root."""
    return normalize(ctx.model.geometry.flatten(ctx.embeddings(view, gathered)))
