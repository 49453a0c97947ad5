"""Hyper3-CLIP's query hierarchy: what an image shows of each part of its caption, within the cones of what is general.

A query is a text of the caption's tree (:mod:`hypvl.data.query_hierarchy`). What the image shows of it is pooled from
the tokens of the image by the query, in training only.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, STUDENT, LossTerm, Model, PairContext, View
from hypvl.losses.entailment import cones_of, entailment_loss
from hypvl.losses.owners import Over, check_owner
from hypvl.losses.uncertainty import CalibrationGradient, calibration_loss, uncertainty_of

#: Which of two is general, and which lies in its cone: a query's text and what the image shows of it; that and the
#: whole image, or the reverse; the query's text and its parent's.
Order: TypeAlias = Literal["text_image", "image_whole", "whole_image", "text_parent"]
#: The parent of each query, or as a control that of the query before it.
Parents: TypeAlias = Literal["own", "shuffled"]
QUERY = View("text", "query_text")


@configurable("train")
class QueryEntailment(LossTerm):
    """Entailment of the queries that have a parent: ``sum_q v_q relu(phi_q - k A_q) / N``, N the number of those.

    v_q is the weight of a query; those without a parent or weight (the captions) count neither in the sum nor in N. A
    batch without queries gives 0.

    Args:
        order: Of each query, which is general and which lies in its cone, see :data:`Order`. Published are
            ``"text_image"`` with k = 0.7, and ``"image_whole"`` and ``"text_parent"`` with 1.2.
        image: View of the whole images.
        query: View of the texts; the batch has their images (``query_owner``), the row of their parent or -1
            (``query_parent``) and their weight (``query_weight``).
        aperture_factor: k > 0.
        parents: For ``"text_parent"``: ``"shuffled"`` gives each query the parent of the one before it, over all ranks.
        over: ``"gathered"``: N and the sum are over every rank; ``"local"``: over this one, as published.

    Raises:
        ValueError: in ``forward``, when the geometry has no cones, or the batch lacks an entry.

    Source: Hyper3-CLIP (arXiv 2608.29313). Open: over which rows its control moves parents.
    Differs: the default ``over="gathered"``.
    """

    uneven = True

    def __init__(
        self,
        order: Order,
        *,
        image: str | View = IMAGE,
        query: str | View = QUERY,
        aperture_factor: float = 1.0,
        parents: Parents = "own",
        over: Over = "gathered",
    ) -> None:
        super().__init__()
        self.order = one_of("order", order, Order)
        self.parents = one_of("parents", parents, Parents)
        self.over = one_of("over", over, Over)
        self.image, self.query = View.parse(image), View.parse(query)
        self.declare(*((self.query,) if order == "text_parent" else (self.image, self.query)))
        self.tokens = self.needs - {self.query}
        self.group = self.query.source.rpartition("_")[0]
        self.entries = frozenset(f"{self.group}_{name}" for name in ("owner", "parent", "weight"))
        self.aperture_factor = number("aperture_factor", aperture_factor, above=0)

    def check(self, models: Mapping[str, Model]) -> None:
        super().check(models)
        if self.order != "text_parent":
            _check_pooling(models, self.image, self.query)

    def forward(self, ctx: PairContext) -> Tensor:
        parent, weight = self._parents(ctx)
        general, specific = self._pairs(ctx, parent)
        counts = (parent >= 0) & (weight > 0)
        values = torch.where(counts, weight * self.per_query(ctx, general, specific), 0.0)
        if self.over == "local":
            return values.sum() / counts.sum().clamp(min=1)
        return values.sum() * distributed.world_size() / distributed.all_reduce_sum(counts.sum()).clamp(min=1)

    def per_query(self, ctx: PairContext, general: Tensor, specific: Tensor) -> Tensor:
        """The loss of each query from its two embeddings: (Q, D), (Q, D) -> (Q,)."""
        cones = cones_of(ctx)
        angle, aperture = cones.exterior_angle(general, specific), cones.half_aperture(general)  # (Q, F)
        return entailment_loss(angle, aperture, aperture_factor=self.aperture_factor, reduction="none")

    def _parents(self, ctx: PairContext) -> tuple[Tensor, Tensor]:
        """Row of the parent of each query, -1 = none, (Q,) int64, and its weight, (Q,)."""
        texts = ctx.features(self.query)
        group, otherwise = self.group, "set dataset.mapper to a QueryMapper"
        if ctx.owner(self.query) is None:
            ctx.entry(f"{group}_owner", meaning="the sample of each query", otherwise=otherwise)
        parent = ctx.entry(
            f"{group}_parent", meaning="the row of each query's parent, or -1", otherwise=otherwise
        )
        weight = ctx.entry(f"{group}_weight", meaning="the weight of each query", otherwise=otherwise)
        # Shifted by one, so that -1 is row 0.
        rows = check_owner(
            f"{group}_parent", torch.as_tensor(parent) + 1, rows=len(texts), samples=len(texts) + 1
        )
        if len(weight) != len(texts):
            raise ValueError(
                f"{group}_weight: got {len(weight)} numbers for {len(texts)} rows; expected one for each query."
            )
        return rows.to(texts.device) - 1, torch.as_tensor(weight).to(texts.device)

    def _pairs(self, ctx: PairContext, parent: Tensor) -> tuple[Tensor, Tensor]:
        """The general and the specific embedding of each query, (Q, D) each."""
        texts = ctx.embeddings(self.query)
        if self.order == "text_parent":
            above = texts[parent.clamp(min=0)] if len(texts) else texts
            return texts, self._shuffled(ctx, above, parent >= 0) if self.parents == "shuffled" else above
        shown = ctx.embeddings(ctx.pooled(self.image, self.query))
        if self.order == "text_image":
            return texts, shown
        whole = ctx.embeddings(self.image)[ctx.owner(self.query)]
        return (shown, whole) if self.order == "image_whole" else (whole, shown)

    def _shuffled(self, ctx: PairContext, above: Tensor, has_parent: Tensor) -> Tensor:
        """Parents moved on by one query, among the queries of all ranks that have one, (Q, D)."""
        rows = ctx.gather(has_parent, self.query).nonzero()[:, 0]  # waits for the device
        every = ctx.gather(above, self.query)  # (N, D)
        moved = every.index_copy(0, rows, every[rows].roll(1, 0))
        return moved[ctx.targets(self.query)]


@configurable("train")
class QueryCalibration(QueryEntailment):
    """The uncertainty of the general one of each pair, calibrated by its entailment loss, averaged as there.

    Args:
        order, image, query, aperture_factor, parents, over: As :class:`QueryEntailment`. Published are the orders
            ``"image_whole"`` and ``"text_parent"``, weighted by 10 within the entailment.
        gradient: As :func:`~hypvl.losses.uncertainty.calibration_loss`.

    Source: Hyper3-CLIP (arXiv 2608.29313); the calibration is UNCHA's.
    """

    def __init__(
        self,
        order: Order,
        *,
        image: str | View = IMAGE,
        query: str | View = QUERY,
        aperture_factor: float = 1.0,
        parents: Parents = "own",
        over: Over = "gathered",
        gradient: CalibrationGradient = "uncertainty",
    ) -> None:
        super().__init__(
            order, image=image, query=query, aperture_factor=aperture_factor, parents=parents, over=over
        )
        self.gradient = one_of("gradient", gradient, CalibrationGradient)

    def per_query(self, ctx: PairContext, general: Tensor, specific: Tensor) -> Tensor:
        loss = super().per_query(ctx, general, specific)
        return calibration_loss(loss, uncertainty_of(ctx, general), gradient=self.gradient)


def _check_pooling(models: Mapping[str, Model], *views: View) -> None:
    """ValueError for views of another encoder than the trained model, or where that pools no image for a text."""
    for view in views:
        if view.encoder != STUDENT:
            raise ValueError(
                f"{view}: got the encoder {view.encoder!r}; images are pooled by the trained model alone."
            )
    if getattr(models[STUDENT], "query_pooling", None) is None:
        raise ValueError(
            "model.query_pooling: is null, but the objective pools images for texts; give the model a QueryPooling."
        )
