"""Diagnostics are about points, not coordinates: the ball and the hyperboloid give the same numbers."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import audit, structure
from hypvl.geometry.lorentz import Lorentz
from tests.geometry.contract import GeometryContract
from tests.geometry.poincare import PoincareBall
from tests.training.tiny import tiny_batch, tiny_learner


class TestPoincareBall(GeometryContract):
    def build(self) -> PoincareBall:
        return PoincareBall(curv_init=0.7)


def features(count: int, *, seed: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spaces(curv: float) -> tuple[Lorentz, PoincareBall]:
    return Lorentz(curv_init=curv).double(), PoincareBall(curv_init=curv).double()


@pytest.mark.parametrize("curv", [0.3, 1.0, 4.0])
def test_shape_of_embeddings_is_that_of_the_points(curv: float) -> None:
    """`flat_distortion` of a ball read as a hyperboloid was 0.557 where it is 0.091."""
    flat = features(12, seed=0) / math.sqrt(curv)
    result = []
    for space in spaces(curv):
        x = space.lift(flat).detach()
        result.append(
            [
                structure.pairwise_distances(space, x),
                structure.unit_radii(space, x),
                torch.tensor(structure.flat_distortion(space, x)),
                torch.tensor(structure.delta_hyperbolicity(structure.pairwise_distances(space, x))),
                audit.root_distances(space, x)[0],
            ]
        )
    torch.testing.assert_close(result[1], result[0], rtol=1e-9, atol=1e-9)
    lengths = torch.linalg.vector_norm(flat, dim=-1)
    torch.testing.assert_close(result[1][1][:, 0], torch.sinh(math.sqrt(curv) * lengths))
    torch.testing.assert_close(result[1][4], lengths)


def test_distance_in_the_ball_by_hand() -> None:
    """Two points at Euclidean distance 1/2 from the centre, a right angle apart: cosh d = 1 + 2 |x-y|^2 / (3/4)^2."""
    x = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64)
    d = structure.pairwise_distances(PoincareBall().double(), x)
    assert d[0, 1].item() == pytest.approx(math.acosh(1 + 2 * 0.5 / 0.75**2))
    assert structure.unit_radii(PoincareBall().double(), x)[0].item() == pytest.approx(
        math.sinh(2 * math.atanh(0.5))
    )


def test_the_audit_of_a_run_is_that_of_the_points() -> None:
    images, texts = features(30, seed=1), 0.6 * features(30, seed=2)
    lorentz, ball = (
        audit.summary(
            space, space.lift(images), space.lift(texts), generator=torch.Generator().manual_seed(0)
        )
        for space in spaces(0.7)
    )
    lorentz.pop("modality_gap"), ball.pop("modality_gap")  # of mean coordinates, as its name says
    assert ball == pytest.approx(lorentz, rel=1e-6)


@pytest.mark.parametrize("recipe", ["meru", "atmg"])
def test_a_training_step_and_scores_of_a_model_are_those_of_the_points(recipe: str) -> None:
    """Scorer, losses, audit and model take a geometry of another package as it is."""
    batch, outputs = tiny_batch(), []
    for ball in (False, True):
        learner = tiny_learner(recipe)
        model = learner.model
        if ball:
            model.geometry = PoincareBall(curv_init=float(model.geometry.curvature))
        learner.constrain_()
        loss = learner(batch)[0].total
        loss.backward()
        model.eval()
        with torch.no_grad():
            images, texts = model.encode_image(batch["image"]), model.encode_text(batch["text"])
            prompts = list(model.encode_text(batch["text"], stage="features").split(4))
            scores = model.scores(images, texts, query_modality="image", key_modality="text")
            classes = model.class_scores(images, prompts)
        grad = model.visual_head.projection.weight.grad
        outputs.append((loss, grad, scores.argsort(), classes.argmax(1)))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-4)
