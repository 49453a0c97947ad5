"""The one softmax cross-entropy: the tiled one has the dense values and gradients, without the matrices."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses import info_nce
from hypvl.losses.base import IMAGE, TEXT, LossTerm, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.hard_negative import NEGATIVE_TEXT, HardNegativeContrastive, InvalidNegatives
from hypvl.losses.info_nce import group_directions
from hypvl.losses.uncertainty import GlobalLocalContrastive
from hypvl.ops.tiled_logsumexp import autograd
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

MODELS: dict[str, tuple[type[Geometry], type[Scorer]]] = {
    "clip": (Sphere, Cosine), "meru": (Lorentz, NegativeDistance), "euclip": (Euclidean, NegativeDistance),
    "atmg": (Lorentz, ExteriorAngle),
}  # fmt: skip
PAIRS = {
    "both ways": (("image", "text"), ("text", "image")),
    "one way": (("image", "text"),),
    "twice": (("text", "image"), ("image", "text"), ("text", "image")),
    "itself": (("image", "image"), ("image", "text")),
}


class TestTiledContrastiveOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return Contrastive(implementation="tiled", tile=(2, 4))


class TestTiledContrastiveOnSphere(LossContract):
    def make(self) -> LossTerm:
        return Contrastive(implementation="tiled", tile=(4, 1), label_smoothing=0.1)

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine(bias_init=-2.0))


class TestTiledAngles(LossContract):
    def make(self) -> LossTerm:
        return Contrastive(implementation="tiled", tile=(100, 5))

    def model(self) -> GeometryOnly:
        return GeometryOnly(Lorentz(), ExteriorAngle())


class TestTiledLabels(LossContract):
    def make(self) -> LossTerm:
        return Contrastive(implementation="tiled", tile=(3, 2), labels="labels")

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"labels": torch.arange(count) % 3 - 1}


class TestTiledSeveralPairs(LossContract):
    def make(self) -> LossTerm:
        pairs = (
            ("image", "text"),
            ("image:box_image", "text"),
            ("text", "image"),
            ("image", "image:box_image"),
        )
        return Contrastive(pairs, implementation="tiled", tile=(3, 3))


def value_and_gradients(
    term: LossTerm, name: str, rows: dict[View, Tensor], batch: dict[str, Tensor] | None = None
) -> list[Tensor]:
    geometry, scorer = MODELS[name]
    model = GeometryOnly(geometry(), scorer()).to(rows[IMAGE].dtype)
    inputs = {view: x.clone().requires_grad_() for view, x in rows.items()}
    value = term(context(model, inputs, **(batch or {})))
    parameters = [p for p in model.parameters() if p.requires_grad]
    result = torch.autograd.grad(value, [*inputs.values(), *parameters], allow_unused=True)
    return [value.detach(), *(g for g in result if g is not None)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_tiled_equals_dense(name: str, pairs: str, smoothing: float) -> None:
    if pairs == "itself" and name in ("meru", "atmg"):
        pytest.skip("distances of points to themselves are rounding noise, different in each implementation")
    rows = {IMAGE: random_features(11, seed=0), TEXT: random_features(11, seed=1)}
    settings = {"pairs": PAIRS[pairs], "label_smoothing": smoothing}
    dense = value_and_gradients(Contrastive(implementation="dense", **settings), name, rows)  # type: ignore[arg-type]
    for tile in ((4, 3), (11, 11), (1, 100)):
        result = value_and_gradients(Contrastive(implementation="tiled", tile=tile, **settings), name, rows)  # type: ignore[arg-type]
        for a, b in zip(result, dense, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("invalid", get_args(InvalidNegatives))
def test_hard_negatives_as_further_keys(name: str, invalid: InvalidNegatives) -> None:
    rows = {IMAGE: random_features(7, seed=0), TEXT: random_features(7, seed=1)}
    rows[NEGATIVE_TEXT] = random_features(14, seed=2)
    mask = {"negative_mask": torch.arange(14).reshape(7, 2) % 3 != 1}
    dense, ours = (
        value_and_gradients(
            HardNegativeContrastive(invalid_negatives=invalid, implementation=kind, tile=(3, 4)),
            name,
            rows,
            mask,
        )
        for kind in ("dense", "tiled")
    )
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_a_temperature_for_each_query(name: str) -> None:
    rows = {IMAGE: random_features(7, seed=0), TEXT: random_features(7, seed=1)}
    dense, ours = (
        value_and_gradients(
            GlobalLocalContrastive(PAIRS["both ways"], implementation=kind, tile=(3, 4)), name, rows
        )
        for kind in ("dense", "tiled")
    )
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reach", [24.0, -1.0])
def test_labels(name: str, smoothing: float, reach: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autograd, "_REACH", reach)
    rows = {IMAGE: random_features(7, seed=0), TEXT: random_features(7, seed=1)}
    batch = {"labels": torch.tensor([0, 1, -1, 0, -1, 2, 0])}
    dense, ours = (
        value_and_gradients(
            Contrastive(implementation=kind, tile=(3, 4), labels="labels", label_smoothing=smoothing),
            name,
            rows,
            batch,
        )
        for kind in ("dense", "tiled")
    )
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("crowded", [False, True])
def test_fp32_error_is_at_most_twice_that_of_dense(name: str, crowded: bool) -> None:
    """Root mean square over seeds against fp64 on the same fp32 features; crowded: within percents of each other.

    The curvature's gradient is a small difference of large parts, whose rounding in fp32 (1e-7 of them) shows: at
    most six times the error of the dense implementation, which adds them up in fp64.
    """
    squares: dict[str, list[list[Tensor]]] = {"dense": [], "tiled": []}
    terms = {
        "dense": Contrastive(implementation="dense"),
        "tiled": Contrastive(implementation="tiled", tile=(32, 48)),
    }
    for seed in range(8):
        views = {IMAGE: random_features(64, 32, seed=2 * seed, scale=0.15),
                 TEXT: random_features(64, 32, seed=2 * seed + 1, scale=0.15)}  # fmt: skip
        rows = {view: x.float() for view, x in views.items()}
        if crowded:
            rows = {view: rows[IMAGE][:1] + 0.01 * x for view, x in rows.items()}
        exact = value_and_gradients(terms["dense"], name, {v: x.double() for v, x in rows.items()})
        for kind, term in terms.items():
            result = value_and_gradients(term, name, rows)
            squares[kind].append(
                [(x.double() - e).square().mean() for x, e in zip(result, exact, strict=True)]
            )
    dense, ours = (torch.tensor(squares[kind]).mean(0).sqrt() for kind in ("dense", "tiled"))
    factor = torch.full_like(dense, 2.0)
    if name == "meru":
        factor[3] = 6.0  # after the value and the features of both views
    assert bool((ours <= factor * dense + 1e-12).all()), (ours / dense).tolist()


@pytest.mark.parametrize("name", ["meru", "atmg"])
@pytest.mark.parametrize("radius", [1e-9, 1e-4, 8.0])
def test_points_of_different_radii_keep_their_digits(name: str, radius: float) -> None:
    """Two of 64 pairs elsewhere than the rest, whose gradients are far larger or smaller."""
    views = {
        IMAGE: random_features(64, 32, seed=0, scale=0.18),
        TEXT: random_features(64, 32, seed=1, scale=0.18),
    }
    rows = {view: x.float() for view, x in views.items()}
    for x in rows.values():
        x[:2] *= radius
    exact = value_and_gradients(
        Contrastive(implementation="dense"), name, {v: x.double() for v, x in rows.items()}
    )
    errors = {
        kind: [
            float((x.double() - e).norm())
            for x, e in zip(
                value_and_gradients(Contrastive(implementation=kind), name, rows), exact, strict=True
            )
        ]
        for kind in ("dense", "tiled")
    }
    for ours, dense, e in zip(errors["tiled"][1:3], errors["dense"][1:3], exact[1:3], strict=True):
        assert ours <= 2 * dense + 1e-7 * float(e.norm())  # of the features of both views


@pytest.mark.parametrize("radius", [1e-24, 1e-22, 1e-20, 1e-17, 1e-14])
def test_an_apex_and_a_point_next_to_the_root_have_finite_gradients(radius: float) -> None:
    rows = {IMAGE: random_features(4, seed=0).float(), TEXT: random_features(4, seed=1).float()}
    for x in rows.values():
        x[0] *= radius
    for part in value_and_gradients(Contrastive(implementation="tiled", tile=(3, 2)), "atmg", rows):
        assert bool(part.isfinite().all())


def test_automatic_choice_is_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = info_nce.log_sum_exps

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(info_nce, "log_sum_exps", counted)
    rows = {IMAGE: random_features(6, seed=0), TEXT: random_features(6, seed=1)}
    before = value_and_gradients(Contrastive(), "meru", rows)[0]
    assert not calls
    monkeypatch.setattr(info_nce, "TILED_FROM", 36)
    after = value_and_gradients(Contrastive(), "meru", rows)[0]
    assert len(calls) == 1  # one pass for both directions
    torch.testing.assert_close(before, after, rtol=1e-12, atol=0)
    value_and_gradients(Contrastive(implementation="dense"), "meru", rows)
    assert len(calls) == 1
    value_and_gradients(Contrastive(), "atmg", rows)
    assert len(calls) == 3  # another angle each way


def test_products_of_spaces_stay_dense() -> None:
    model = GeometryOnly(Product(factors=2, factor_dim=4), NegativeDistance())
    rows = {IMAGE: random_features(5, 8, seed=0), TEXT: random_features(5, 8, seed=1)}
    with pytest.warns(
        UserWarning,
        match="implementation='tiled': NegativeDistance in Product is not a function of one inner",
    ):
        ours = Contrastive(implementation="tiled")(context(model, rows))
    assert torch.equal(ours, Contrastive(implementation="dense")(context(model, rows)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"implementation": "sparse"}, "implementation: got 'sparse'"),
        ({"tile": (0, 4)}, r"tile: got \(0, 4\)"),
        ({"tile": (4,)}, "tile: got"),
        ({"tile": 3}, "tile: got 3; expected the rows and columns of a tile, two whole numbers"),
        ({"tile": [1.5, 2]}, r"tile: got \[1.5, 2\]"),
        ({"tile": ["a", "b"]}, "tile: got"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Contrastive(**settings)  # type: ignore[arg-type]


def test_directions_are_grouped_with_their_reverse() -> None:
    boxes = View("image", "box_image")
    pairs = (("image", "text"), ("image:box_image", "text"), ("text", "image"), ("image", "text"))
    assert group_directions(pairs) == [(IMAGE, TEXT, True), (boxes, TEXT, False), (IMAGE, TEXT, False)]
    assert group_directions([("image", "image")] * 2) == [(IMAGE, IMAGE, False)] * 2
