"""Losses over all pairs: the tiled ones have the dense values and gradients, without the matrices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses import info_nce
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.cloob import CLOOB
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic
from hypvl.losses.sigmoid import Sigmoid
from hypvl.losses.uniformity import CentreUniform, CrossUniform, Uniform
from hypvl.ops import row_means
from tests.losses.contract import LossContract
from tests.losses.implementations import forced
from tests.losses.test_info_nce import MODELS, value_and_gradients
from tests.losses.toy import GeometryOnly, context, random_features

TERMS: dict[str, Callable[..., LossTerm]] = {
    "sigmoid": lambda **way: Sigmoid(bias_init=-2.0, **way),
    "sigmoid, mean over pairs": lambda **way: Sigmoid(bias_init=3.0, denominator="pairs", **way),
    "in-modal": InModalCyclic,
    "cross-modal": CrossModalCyclic,
    "cloob": lambda **way: CLOOB(learn_inv_tau=True, **way),
    "uniform": lambda **way: Uniform("image", **way),
    "cross-modal uniform": lambda **way: CrossUniform(t=0.5, **way),
    "uniform centres": CentreUniform,
}


class TestTiledSigmoid(LossContract):
    def make(self) -> LossTerm:
        return TERMS["sigmoid"](implementation="tiled").double()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestTiledInModal(LossContract):
    def make(self) -> LossTerm:
        return TERMS["in-modal"](implementation="tiled")


class TestTiledCLOOB(LossContract):
    def make(self) -> LossTerm:
        return TERMS["cloob"](implementation="tiled").double()


class TestTiledUniformCentres(LossContract):
    def make(self) -> LossTerm:
        return TERMS["uniform centres"](implementation="tiled")


def _found(term: LossTerm, name: str, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    rows = {
        view: random_features(11, 8, seed=2 * seed + i).float().to(dtype)
        for i, view in enumerate((IMAGE, TEXT))
    }
    with forced("tiled"):  # the size of the blocks; which of the two is in the term
        return value_and_gradients(term.to(dtype), name, rows)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("term", TERMS)
def test_tiled_equals_dense(term: str, name: str) -> None:
    tiled, dense = (_found(TERMS[term](implementation=way), name) for way in ("tiled", "dense"))
    assert len(tiled) == len(dense)
    for a, b in zip(tiled, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("term", TERMS)
def test_scalars_of_the_term_learn_the_same(term: str) -> None:
    """The bias of the sigmoid, the temperature of CLOOB: gradients of what belongs to no row."""
    rows = {IMAGE: random_features(7, seed=0), TEXT: random_features(7, seed=1)}
    found = []
    for way in ("tiled", "dense"):
        one = TERMS[term](implementation=way).double()
        with forced("tiled"):
            value = one(context(GeometryOnly(Sphere(), Cosine()), rows))
        if value.requires_grad:
            value.backward()
        found.append([p.grad for p in one.parameters()])
    assert found[0] or term not in ("sigmoid", "cloob")
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["clip", "meru"])
@pytest.mark.parametrize("term", TERMS)
def test_fp32_error_is_at_most_twice_that_of_dense(term: str, name: str) -> None:
    """Root mean square over several seeds, of the value and of the gradients of features."""
    squares: dict[str, list[list[Tensor]]] = {"tiled": [], "dense": []}
    for seed in range(6):
        exact = _found(TERMS[term](implementation="dense"), name, seed=seed)[:3]
        for way, errors in squares.items():
            result = _found(TERMS[term](implementation=way), name, dtype=torch.float32, seed=seed)
            errors.append([(x - e).square().mean() for x, e in zip(result, exact, strict=False)])
    ours, dense = (torch.tensor(squares[way]).mean(0).sqrt() for way in ("tiled", "dense"))
    assert bool((ours <= 2 * dense + 1e-8).all()), (ours, dense)


@pytest.mark.parametrize("term", TERMS)
def test_automatic_choice_is_by_size(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for function in ("mean_over_rows", "by_rows"):
        real = getattr(row_means, function)

        def counted(*args: Any, real: Callable[..., Tensor] = real, **kwargs: Any) -> Tensor:
            calls.append(1)
            return real(*args, **kwargs)

        monkeypatch.setattr(row_means, function, counted)
    rows = {IMAGE: random_features(6, seed=0), TEXT: random_features(6, seed=1)}
    before = value_and_gradients(TERMS[term]().double(), "clip", rows)[0]
    assert not calls
    monkeypatch.setattr(info_nce, "TILED_FROM", 36)
    after = value_and_gradients(TERMS[term]().double(), "clip", rows)[0]
    assert len(calls) == (6 if term == "cloob" else 1)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=0)
    value_and_gradients(TERMS[term](implementation="dense").double(), "clip", rows)
    assert len(calls) == (6 if term == "cloob" else 1)


def test_products_of_spaces_stay_dense() -> None:
    model = GeometryOnly(Product(factors=2, factor_dim=4), NegativeDistance())
    rows = {IMAGE: random_features(5, 8, seed=0), TEXT: random_features(5, 8, seed=1)}
    for term, name in (("sigmoid", "NegativeDistance in Product"), ("in-modal", "the similarity of Product")):
        with pytest.warns(UserWarning, match=f"implementation='tiled': {name} is not a function of one"):
            ours = TERMS[term](implementation="tiled").double()(context(model, rows))
        assert torch.equal(ours, TERMS[term](implementation="dense").double()(context(model, rows)))


@pytest.mark.parametrize("term", TERMS)
def test_implementation_is_checked(term: str) -> None:
    with pytest.raises(ValueError, match="implementation: got 'sparse'; expected 'auto', 'dense' or 'tiled'"):
        TERMS[term](implementation="sparse")
