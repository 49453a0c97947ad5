"""SimReg: by hand, with a predictor, and what it refuses."""

from typing import Any

import pytest
import torch

from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.simreg import Predictor, SimReg, sim_reg
from tests.losses.contract import LossContract
from tests.losses.sized import Sized
from tests.losses.toy import GeometryOnly, context, random_features


class TestSimReg(LossContract):
    def make(self) -> LossTerm:
        return SimReg(student="image", teacher="text", detach_teacher=False)


class TestSimRegOfItra(LossContract):
    def make(self) -> LossTerm:
        return SimReg(
            student="text", teacher="image", distance="smooth_l1", variant="itra", detach_teacher=False
        )


class TestSimRegWithPredictor(LossContract):
    def make(self) -> LossTerm:
        torch.manual_seed(0)
        term = SimReg(
            student="image", teacher="text", predictor=Predictor(4, 4, hidden=5), detach_teacher=False
        )
        return term.double()


@pytest.mark.parametrize(
    ("distance", "original"),
    [("squared", 2.0), ("l1", 2.0), ("smooth_l1", 1.0)],  # (1, 0) and (0, 1): two entries that differ by 1
)
def test_by_hand(distance: Any, original: float) -> None:
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 7.0], [0.0, 1.0]])
    value = sim_reg(student, teacher, distance=distance)
    assert value.item() == pytest.approx(original / 2)  # the second pair agrees
    assert sim_reg(student, teacher, distance=distance, variant="itra").item() == pytest.approx(original / 4)


def test_the_original_is_two_minus_two_cosines() -> None:
    student, teacher = random_features(5), random_features(5, seed=1)
    cosines = torch.nn.functional.cosine_similarity(student, teacher)
    torch.testing.assert_close(sim_reg(student, teacher), (2 - 2 * cosines).mean())


def test_the_teacher_is_detached_unless_said() -> None:
    for detach in (True, False):
        rows = {IMAGE: random_features(4).requires_grad_(), TEXT: random_features(4, seed=1).requires_grad_()}
        SimReg(student="image", teacher="text", detach_teacher=detach)(context(_model(), rows)).backward()
        assert rows[IMAGE].grad is not None and (rows[TEXT].grad is None) == detach


def test_the_predictor_is_trained_and_its_norms_use_the_batch() -> None:
    torch.manual_seed(0)
    predictor = Predictor(4, 3, hidden=6).double()
    rows = {IMAGE: random_features(8), TEXT: random_features(8, 3, seed=1)}
    SimReg(student="image", teacher="text", predictor=predictor)(context(_model(), rows)).backward()
    gradients = [p.grad for p in predictor.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[1:])
    hidden = torch.nn.functional.batch_norm(
        predictor.linears[0](rows[IMAGE]), None, None, training=True
    ).relu()
    torch.testing.assert_close(predictor(rows[IMAGE]), predictor.linears[1](hidden))


def test_other_sizes_are_refused() -> None:
    term = SimReg(student="image", teacher="image@t")
    with pytest.raises(ValueError, match=r"features of different sizes .*image:image@t: 7"):
        term.check({"student": Sized(4), "t": Sized(7)})
    term = SimReg(student="image", teacher="image@t", predictor=Predictor(4, 6))
    with pytest.raises(ValueError, match=r"predictor.out_features: got 6, but the features of .* size 7"):
        term.check({"student": Sized(4), "t": Sized(7)})
    SimReg(student="image", teacher="image@t", predictor=Predictor(4, 7)).check(
        {"student": Sized(4), "t": Sized(7)}
    )
    with pytest.raises(ValueError, match="distance: got 'cosine'; expected 'squared', 'l1' or 'smooth_l1'"):
        SimReg(student="image", teacher="text", distance="cosine")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="detach_teacher: got 1; expected True or False"):
        SimReg(student="image", teacher="text", detach_teacher=1)  # type: ignore[arg-type]  # wrong on purpose


def _model() -> GeometryOnly:
    return LossContract().model()
