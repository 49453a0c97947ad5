"""Ways to ensemble prompts: each by its formula, and where two of them must agree."""

import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.prompt_ensembling import Ensemble, class_scorer
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from tests.evaluation.fakes import FakeModel


class Composed(FakeModel):
    """A model of a geometry and a scorer, whose features are given."""

    def __init__(self, geometry: Geometry, scorer: Scorer) -> None:
        super().__init__()
        self.geometry, self.scorer = geometry.double(), scorer

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        return self.scorer.scores(
            self.geometry,
            query,
            key,
            query_modality=query_modality,
            key_modality=key_modality,  # type: ignore[arg-type]
        )

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        return self.scorer.class_scores(self.geometry, image_embeddings, prompt_features)

    def pool(self, features: Tensor, *, modality: str) -> Tensor:
        assert modality == "text"
        return self.geometry.pool(features)


MODELS = {
    "clip": lambda: Composed(Sphere(), Cosine()),
    "euclip": lambda: Composed(Euclidean(), NegativeDistance()),
    "meru": lambda: Composed(Lorentz(), NegativeDistance()),
    "atmg": lambda: Composed(Lorentz(curv_init=0.1), ExteriorAngle()),
    "phyclip": lambda: Composed(Product(factors=2, factor_dim=3), NegativeDistance()),
}

ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)


def features(count: int, *, seed: int, dim: int = 6) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PROMPTS = [features(count, seed=i) for i, count in enumerate((1, 3, 4))]


@torch.no_grad()
def scores(model: Composed, ensemble: Ensemble, prompts: Sequence[Tensor] = PROMPTS) -> Tensor:
    images = model.geometry.lift(features(5, seed=9))
    return class_scorer(model, prompts, ensemble=ensemble)(images)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_one_prompt_a_class_leaves_nothing_to_ensemble(name: str) -> None:
    model, single = MODELS[name](), [p[:1] for p in PROMPTS]
    own = scores(model, "model", single)
    for ensemble in ENSEMBLES:
        torch.testing.assert_close(scores(model, ensemble, single), own, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_every_method_is_defined_and_several_differ(name: str) -> None:
    model = MODELS[name]()
    result = [scores(model, ensemble) for ensemble in ENSEMBLES]
    assert all(bool(s.isfinite().all()) and s.shape == (5, 3) for s in result)
    distinct = {tuple(s.flatten().mul(1e6).round().tolist()) for s in result}
    assert len(distinct) >= 3


def same(name: str, *ensembles: Ensemble) -> bool:
    model = MODELS[name]()
    first, *others = (scores(model, ensemble) for ensemble in ensembles)
    return all(torch.allclose(first, other, rtol=1e-8, atol=1e-8) for other in others)


def test_which_method_each_model_uses_by_default() -> None:
    assert same("clip", "model", "normalized_mean", "tangent_mean")  # unit vectors, flattened as they are
    assert same("meru", "model", "raw_mean", "tangent_mean")
    assert same("phyclip", "model", "raw_mean", "tangent_mean")
    assert same("euclip", "model", "raw_mean", "tangent_mean")
    assert same("atmg", "model", "score_mean")
    assert not same("clip", "model", "raw_mean")
    assert not same("meru", "model", "normalized_mean")
    assert not same("atmg", "model", "raw_mean")


def test_directions_are_what_a_hyperboloid_can_pool_itself() -> None:
    model = Composed(Lorentz(pooling="direction"), NegativeDistance())
    torch.testing.assert_close(scores(model, "normalized_mean"), scores(model, "model"), rtol=1e-9, atol=1e-9)


def test_tangent_means_see_saturation() -> None:
    model = MODELS["meru"]()
    far = [torch.stack([100 * p[0], p[0]]) for p in PROMPTS]
    assert not torch.allclose(scores(model, "tangent_mean", far), scores(model, "raw_mean", far))


def test_by_hand_on_the_circle() -> None:
    model = MODELS["clip"]()
    image = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    prompts = [torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)]
    expected = {"raw_mean": 3 / math.sqrt(10), "normalized_mean": 1 / math.sqrt(2), "score_mean": 0.5}
    for ensemble, value in expected.items():
        result = class_scorer(model, prompts, ensemble=ensemble)(image)  # type: ignore[arg-type]
        assert result.item() == pytest.approx(value)


def test_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match="ensemble: got 'median'; expected 'model', 'normalized_mean'"):
        scores(MODELS["clip"](), "median")  # type: ignore[arg-type]
