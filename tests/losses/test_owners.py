"""Views of which a sample has any number of rows, and what losses make of them, in one process."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.losses.base import IMAGE, TEXT, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment, entailment_loss
from hypvl.losses.hard_negative import NEGATIVE_TEXT
from hypvl.losses.info_nce import info_nce
from hypvl.losses.sigmoid import Sigmoid
from hypvl.losses.uncha_draft import DraftCalibration
from tests.losses.contract import LossContract
from tests.losses.implementations import forced
from tests.losses.toy import context, random_features

BOX_IMAGE, BOX_TEXT = View.parse("image:box_image"), View.parse("text:box_text")
OWNER = torch.tensor([0, 0, 0, 2])  # sample 1 has no box


def step(owner: Any = OWNER, *, rows: int | None = None, samples: int = 3, grad: bool = False) -> PairContext:
    boxes = len(owner) if rows is None else rows
    sizes = {IMAGE: samples, TEXT: samples, BOX_IMAGE: boxes, BOX_TEXT: boxes}
    features = {view: random_features(size, seed=i) for i, (view, size) in enumerate(sizes.items())}
    if grad:
        features = {view: x.requires_grad_() for view, x in features.items()}
    return context(LossContract().model(), features, box_owner=owner)


def logits(query: View, key: View, ctx: PairContext) -> Tensor:
    return ctx.score(ctx.embeddings(query), ctx.embeddings(key), query=query, key=key)


def test_rows_wholes_and_counts() -> None:
    ctx = step(np.array([0, 0, 2]))
    assert ctx.owner(IMAGE) is None and ctx.samples == 3
    owner = ctx.owner(BOX_IMAGE)
    assert owner is not None and owner.tolist() == [0, 0, 2] and owner.dtype == torch.int64
    assert ctx.targets(BOX_TEXT).tolist() == [0, 1, 2] and ctx.count(BOX_TEXT) == 3
    assert ctx.owners(BOX_TEXT).tolist() == ctx.owners(BOX_TEXT, gathered=True).tolist() == [0, 0, 2]
    assert ctx.owners(TEXT, gathered=True).tolist() == [0, 1, 2]
    assert ctx.mean(torch.tensor([1.0, 2.0, 6.0]), BOX_IMAGE).item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("owner", "rows", "said"),
    [
        (
            [0, 3, 1],
            3,
            r"box_owner: got 0 to 3 for 3 samples; expected numbers of samples of this rank, 0 to 2\.",
        ),
        ([0, -1, 1], 3, r"box_owner: got -1 to 1 for 3 samples"),
        (
            [0, 1],
            3,
            r"box_owner: got torch.int64 of shape \(2,\) for 3 rows; expected the number of the sample",
        ),
        ([0.0, 1.0], 2, r"box_owner: got torch.float32 of shape \(2,\) for 2 rows"),
    ],
)
def test_owners_that_do_not_fit_are_refused(owner: list[Any], rows: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        step(torch.tensor(owner), rows=rows).owner(BOX_IMAGE)


def test_every_box_asks_for_its_whole_and_weighs_the_same() -> None:
    ctx = step()
    z = logits(BOX_IMAGE, TEXT, ctx)  # (4, 3)
    expected = (z.logsumexp(1) - z[torch.arange(4), OWNER]).mean()
    for implementation in ("dense", "tiled"):
        found = info_nce(ctx, BOX_IMAGE, TEXT, implementation=implementation, tile=(2, 2))
        torch.testing.assert_close(found, expected[None], rtol=1e-10, atol=0)


def test_other_boxes_of_the_same_image_are_left_out() -> None:
    ctx = step()
    z = logits(BOX_IMAGE, BOX_TEXT, ctx)
    kept = [[0, 3], [1, 3], [2, 3], [0, 1, 2, 3]]
    expected = sum(z[i, columns].logsumexp(0) - z[i, i] for i, columns in enumerate(kept)) / 4
    found = info_nce(ctx, BOX_IMAGE, BOX_TEXT, same_whole="masked", both_directions=True)
    back = [z.mT[i, columns].logsumexp(0) - z[i, i] for i, columns in enumerate(kept)]
    torch.testing.assert_close(found, torch.stack([expected, sum(back) / 4]), rtol=1e-10, atol=0)
    smooth = info_nce(ctx, BOX_IMAGE, BOX_TEXT, same_whole="masked", smoothing=0.3)
    rows = [z[i, c].logsumexp(0) - 0.7 * z[i, i] - 0.3 * z[i, c].mean() for i, c in enumerate(kept)]
    torch.testing.assert_close(smooth[0], sum(rows) / 4, rtol=1e-10, atol=0)
    tiled = info_nce(
        ctx,
        BOX_IMAGE,
        BOX_TEXT,
        same_whole="masked",
        smoothing=0.3,
        implementation="tiled",
        both_directions=True,
    )
    torch.testing.assert_close(tiled[:1], smooth, rtol=1e-12, atol=0)


def test_wholes_as_keys_once_for_each_box() -> None:
    """As published: the other columns of the query's own image are negatives with the score of the positive."""
    ctx = step()
    z = logits(BOX_IMAGE, TEXT, ctx)[:, OWNER]  # (4, 4), columns 0 to 2 are one text
    repeated = info_nce(ctx, BOX_IMAGE, TEXT, wholes="per_row")
    torch.testing.assert_close(repeated[0], (z.logsumexp(1) - z.diagonal()).mean(), rtol=1e-10, atol=0)
    of_three = (z.logsumexp(1) - z.diagonal())[:3]
    assert (of_three >= math.log(3)).all()
    kept = [[0, 3], [1, 3], [2, 3], [0, 1, 2, 3]]
    expected = sum(z[i, columns].logsumexp(0) - z[i, i] for i, columns in enumerate(kept)) / 4
    masked = info_nce(ctx, BOX_IMAGE, TEXT, wholes="per_row", same_whole="masked")
    torch.testing.assert_close(masked[0], expected, rtol=1e-10, atol=0)


def test_boxes_are_entailed_in_their_own_whole() -> None:
    ctx = step()
    cones = ctx.model.geometry.cones
    assert cones is not None
    apex, point = ctx.embeddings(BOX_IMAGE), ctx.embeddings(IMAGE)[OWNER]
    expected = entailment_loss(cones.exterior_angle(apex, point), cones.half_aperture(apex))
    found = Entailment(general=BOX_IMAGE, specific=IMAGE)(ctx)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert expected > 0


@pytest.mark.parametrize("implementation", ["chosen", "tiled"])
def test_no_box_anywhere_is_0(implementation: str) -> None:
    terms = {
        "wholes": Contrastive(),
        "local": Contrastive([(BOX_IMAGE, BOX_TEXT), (BOX_TEXT, BOX_IMAGE), (BOX_TEXT, IMAGE)]),
        "cross": Entailment(general=BOX_IMAGE, specific=IMAGE),
    }
    with forced(implementation):
        ctx = step(torch.zeros(0, dtype=torch.int64), grad=True)
        output = Objective(terms)(ctx)
    assert ctx.empty_groups == {"box_owner"} and not step().empty_groups
    assert output.terms["local"].item() == output.terms["cross"].item() == 0.0
    output.total.backward()
    for view in (IMAGE, TEXT, BOX_IMAGE, BOX_TEXT):
        gradient = ctx.features(view).grad
        assert gradient is not None and gradient.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ctx.model.geometry.parameters())


def test_what_takes_one_row_for_each_sample_refuses_more() -> None:
    said = (
        r"terms.a: {} takes one row of .box_image. for each sample, but .* \(box_owner\); choose boxes=.one."
    )
    for term in (Sigmoid(query=BOX_IMAGE), DraftCalibration(general=BOX_IMAGE)):
        with pytest.raises(ValueError, match=said.format(type(term).__name__)):
            Objective({"a": term})(step())
    with pytest.raises(ValueError, match=r"their rows do not belong together .*None.*box_owner"):
        info_nce(step(), TEXT, BOX_IMAGE)
    ctx = context(LossContract().model(), {IMAGE: random_features(3), BOX_TEXT: random_features(4)})
    with pytest.raises(ValueError, match=r"got 4 and 3 rows, .* let the batch name their owners"):
        info_nce(ctx, BOX_TEXT, IMAGE)
    with pytest.raises(
        ValueError, match=r"labels: got 'kind', a label of each sample, for text:box_text@student"
    ):
        Contrastive([(BOX_TEXT, IMAGE)], labels="kind")(step())
    features = {IMAGE: random_features(3), BOX_TEXT: random_features(4), NEGATIVE_TEXT: random_features(6)}
    ctx = context(LossContract().model(), features, box_owner=OWNER)
    for loss in (info_nce, lambda *views: Entailment(general=views[1], specific=views[2])(views[0])):
        with pytest.raises(
            ValueError, match="negative_text@student: got 6 rows for 3 samples; expected one row"
        ):
            loss(ctx, BOX_TEXT, NEGATIVE_TEXT)
    with pytest.raises(ValueError, match="image:box_image@student: samples have different numbers of rows"):
        step().own_logits(TEXT, BOX_IMAGE)
