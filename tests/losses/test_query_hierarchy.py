"""Entailment and calibration of queries (numbers of the published code: tests/parity/test_hyper3.py)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl import distributed
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from hypvl.losses.base import IMAGE, LossTerm, Objective
from hypvl.losses.query_hierarchy import QUERY, QueryCalibration, QueryEntailment
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class Pooling(GeometryOnly):
    """An image shows of a text what lies between the two."""

    query_pooling = True

    def pool_queries(self, tokens: Tensor, queries: Tensor, owner: Tensor) -> Tensor:
        return 0.5 * tokens[owner] + 0.4 * queries


def model() -> Pooling:
    return Pooling(Lorentz(curv_init=1.0), NegativeDistance())


class Queries:
    """What the contract tests of this file share."""

    permutes = False  # parents are rows of the batch, see "order" in the docstrings

    def model(self) -> GeometryOnly:
        return model()

    def flat_model(self) -> GeometryOnly:
        return Pooling(Euclidean(min_radius=0.2), NegativeDistance())

    def batch(self, count: int) -> dict[str, Tensor]:
        """One query for each sample; of three in a row the first is the parent of the second, and that of the third."""
        local = count // distributed.world_size()
        places = torch.arange(count) % local
        parent = torch.where(places % 3 == 0, -1, places - 1)
        weight = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)[places % 3]
        return {"index": places, "query_owner": places, "query_parent": parent, "query_weight": weight}


class TestTextImage(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryEntailment("text_image", aperture_factor=0.7)


class TestImageWhole(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryEntailment("image_whole", aperture_factor=1.2)


class TestWholeImage(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryEntailment("whole_image", aperture_factor=1.2)


class TestTextParent(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryEntailment("text_parent", aperture_factor=1.2)


class TestShuffledParents(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryEntailment("text_parent", parents="shuffled")


class TestQueryCalibration(Queries, LossContract):
    def make(self) -> LossTerm:
        return QueryCalibration("image_whole", aperture_factor=1.2, gradient="both")


def queries(**changes: Any) -> dict[str, Any]:
    """Two samples of three and one query: a caption, two parts of it, and a caption alone."""
    return {
        "index": torch.arange(2),
        "query_owner": torch.tensor([0, 0, 0, 1]),
        "query_parent": torch.tensor([-1, 0, 1, -1]),
        "query_weight": torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=torch.float64),
        **changes,
    }


def rows(count: int = 4) -> dict[Any, Tensor]:
    return {IMAGE: random_features(2), QUERY: random_features(count, seed=1)}


def test_value_by_hand() -> None:
    space, features = model(), rows()
    x, image = (space.geometry.lift(features[view]) for view in (QUERY, IMAGE))
    shown = space.geometry.lift(0.5 * features[IMAGE][[0, 0]] + 0.4 * features[QUERY][1:3])
    cones = space.geometry.cones

    def outside(general: Tensor, specific: Tensor, k: float) -> Tensor:
        return torch.relu(cones.exterior_angle(general, specific) - k * cones.half_aperture(general))[:, 0]

    pairs = {
        "text_image": (x[1:3], shown),
        "image_whole": (shown, image[[0, 0]]),
        "text_parent": (x[1:3], x[0:2]),
    }
    pairs["whole_image"] = pairs["image_whole"][::-1]
    for order, (general, specific) in pairs.items():
        each = outside(general, specific, 0.3)
        assert (each > 0).all(), "nothing to see within the cones"
        value = QueryEntailment(order, aperture_factor=0.3)(context(space, features, **queries()))  # type: ignore[arg-type]
        assert value.item() == pytest.approx((each[0] + 0.5 * each[1]).item() / 2, rel=1e-12), order
        w = torch.nn.functional.softplus(-general.norm(dim=1))
        calibrated = 0.5 * each / (w.exp() + 1e-6) + 0.5 * w
        term = QueryCalibration(order, aperture_factor=0.3)  # type: ignore[arg-type]
        value = term(context(space, features, **queries()))
        assert value.item() == pytest.approx((calibrated[0] + 0.5 * calibrated[1]).item() / 2, rel=1e-12)


def test_shuffled_parents_move_on_by_one() -> None:
    """Of the two queries that have a parent, each gets the other's; a query that would get itself is not avoided."""
    space, features = model(), rows(5)
    given = queries(
        query_owner=torch.tensor([0, 0, 0, 1, 1]),
        query_parent=torch.tensor([-1, 0, 0, -1, 3]),
        query_weight=torch.ones(5, dtype=torch.float64),
    )
    x = space.geometry.lift(features[QUERY])
    general, specific = x[[1, 2, 4]], x[[3, 0, 0]]
    cones = space.geometry.cones
    each = torch.relu(cones.exterior_angle(general, specific) - cones.half_aperture(general))
    term = QueryEntailment("text_parent", parents="shuffled")
    assert term(context(space, features, **given)).item() == pytest.approx(each.mean().item(), rel=1e-12)


def test_pooling_happens_once_for_all_terms() -> None:
    space, calls = model(), []
    pool = space.pool_queries
    space.pool_queries = lambda *given: calls.append(1) or pool(*given)  # type: ignore[method-assign,func-returns-value]
    terms = {order: QueryEntailment(order) for order in ("text_image", "image_whole", "whole_image")}  # type: ignore[arg-type]
    Objective(terms | {"calibration": QueryCalibration("text_image")})(context(space, rows(), **queries()))
    assert len(calls) == 1


def test_calibration_trains_the_uncertainty_alone_by_default() -> None:
    given = {view: x.requires_grad_() for view, x in rows().items()}
    for gradient, reaches in (("uncertainty", False), ("both", True)):
        term = QueryCalibration("image_whole", gradient=gradient)  # type: ignore[arg-type]
        space = model()
        (found,) = torch.autograd.grad(term(context(space, given, **queries())), [given[QUERY]])
        assert found[1:3].abs().sum() > 0
        whole = QueryCalibration("whole_image", gradient=gradient)  # type: ignore[arg-type]
        (found,) = torch.autograd.grad(
            whole(context(space, given, **queries())), [given[QUERY]], allow_unused=True
        )
        assert (found is not None and bool(found.abs().sum() > 0)) == reaches


def test_without_queries_the_value_is_zero_with_a_graph() -> None:
    space, features = model(), rows(0)
    features[QUERY].requires_grad_()
    given = queries(
        query_owner=torch.zeros(0, dtype=torch.int64),
        query_parent=torch.zeros(0, dtype=torch.int64),
        query_weight=torch.zeros(0),
    )
    for order in ("text_image", "image_whole", "text_parent"):
        value = QueryEntailment(order)(context(space, features, **given))  # type: ignore[arg-type]
        assert value.item() == 0.0
        value.backward()
    only_captions = queries(query_parent=torch.full((4,), -1))
    assert QueryEntailment("text_image")(context(space, rows(), **only_captions)).item() == 0.0


def test_what_does_not_fit_is_named() -> None:
    term, space = QueryEntailment("image_whole"), model()
    wrong = {
        "batch: has no 'query_parent', the row of each query's parent, or -1": {"query_parent": None},
        "query_parent: got 0 to 5 for 5 samples": {"query_parent": torch.tensor([-1, 0, 4, -1])},
        r"query_weight: got 2 numbers for 4 rows": {"query_weight": torch.ones(2)},
    }
    for message, changes in wrong.items():
        given = {key: value for key, value in queries(**changes).items() if value is not None}
        with pytest.raises(ValueError, match=message):
            term(context(space, rows(), **given))
    with pytest.raises(ValueError, match=r"model\.query_pooling: is null, but the objective pools images"):
        term.check({"student": GeometryOnly(Lorentz(), NegativeDistance())})
    term.check({"student": space})
    QueryEntailment("text_parent").check({"student": GeometryOnly(Lorentz(), NegativeDistance())})
    teacher = QueryEntailment("text_image", query="text:query_text@ema")
    with pytest.raises(ValueError, match="images are pooled by the trained model alone"):
        teacher.check({"student": space, "ema": space})
    with pytest.raises(ValueError, match=r"order: got 'image_text'; expected .*the closest is 'image_whole'"):
        QueryEntailment("image_text")  # type: ignore[arg-type]
