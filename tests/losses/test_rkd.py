"""RKD: distances and angles by hand, chunks of anchors, and what stays finite."""

import pytest
import torch
from torch import Tensor

from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.rkd import RKDAngle, RKDDistance, angle_loss, distance_loss
from tests.losses.contract import LossContract
from tests.losses.sized import Sized
from tests.losses.toy import context, random_features

VIEWS = {"student": "image", "teacher": "text", "detach_teacher": False}


class TestRKDDistance(LossContract):
    def make(self) -> LossTerm:
        return RKDDistance(**VIEWS)  # type: ignore[arg-type]  # a dict of several types


class TestRKDDistanceOfItra(LossContract):
    def make(self) -> LossTerm:
        return RKDDistance(**VIEWS, variant="itra")  # type: ignore[arg-type]  # a dict of several types


class TestRKDAngle(LossContract):
    def make(self) -> LossTerm:
        return RKDAngle(**VIEWS, anchors_at_once=2)  # type: ignore[arg-type]  # a dict of several types


class TestRKDAngleOfItra(LossContract):
    def make(self) -> LossTerm:
        return RKDAngle(**VIEWS, variant="itra")  # type: ignore[arg-type]  # a dict of several types


# Points on a line at 0, 1, 3 (distances 1, 2, 3, mean 2) and at the corners of an equilateral triangle.
_LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
_TRIANGLE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)


def test_distances_by_hand() -> None:
    """1/2, 1, 3/2 against 1, 1, 1: two differences of 1/2, each in two orders, of nine entries."""
    value = distance_loss(_LINE, 5 * _TRIANGLE, _LINE, 5 * _TRIANGLE)
    assert value.item() == pytest.approx(4 * 0.5 * 0.5**2 / 9)


def test_angles_by_hand() -> None:
    """Cosines of the pairs j != k at the three anchors: 1, -1, 1 on the line, 1/2 each in the triangle."""
    value = angle_loss(_LINE, _TRIANGLE, _LINE, _TRIANGLE)
    assert value.item() == pytest.approx(2 * (0.125 + 1.0 + 0.125) / 27)  # |-1.5| - 0.5 = 1


def test_neither_size_nor_place_of_a_cloud_matters() -> None:
    x, y = random_features(6), random_features(6, seed=1)
    for loss in (distance_loss, angle_loss):
        moved = 7 * x + 3
        torch.testing.assert_close(loss(moved, y, moved, y), loss(x, y, x, y))


def written_out(student: Tensor, teacher: Tensor) -> Tensor:
    """The angles of all triples at once."""
    cosines = []
    for x in (student, teacher):
        units = torch.nn.functional.normalize(x[None] - x[:, None], dim=-1)  # (B, B, D)
        cosines.append(torch.einsum("ijd,ikd->ijk", units, units))
    return torch.nn.functional.smooth_l1_loss(*cosines)


@pytest.mark.parametrize("anchors", [1, 3, 4, 7, 50, None])
def test_chunks_change_neither_value_nor_gradients(anchors: int | None) -> None:
    results = []
    for loss in (lambda x, y: angle_loss(x, y, x, y, anchors_at_once=anchors), written_out):
        rows = [random_features(7, seed=seed).requires_grad_() for seed in (0, 1)]
        value = loss(*rows)
        value.backward()
        results.append([value.detach(), *[x.grad for x in rows]])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)


def test_no_tensor_of_all_triples_is_kept() -> None:
    """What is saved for the backward pass is linear in the batch."""
    sizes: list[int] = []

    def note(t: Tensor) -> Tensor:
        sizes.append(t.numel())
        return t

    rows = random_features(12).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        angle_loss(rows, rows.detach(), rows, rows.detach(), anchors_at_once=2)
    assert sizes and max(sizes) <= 12 * 4


def test_equal_rows_have_no_direction() -> None:
    x = _LINE[[0, 1, 1, 2]].clone().requires_grad_()
    value = angle_loss(x, _TRIANGLE[[0, 1, 1, 2]], x, _TRIANGLE[[0, 1, 1, 2]])
    value.backward()
    assert torch.isfinite(value) and x.grad is not None and x.grad.abs().max() < 10


def test_the_teacher_may_have_features_of_another_size() -> None:
    rows = {IMAGE: random_features(5).requires_grad_(), TEXT: random_features(5, 7, seed=1).requires_grad_()}
    for term in (RKDDistance(student="image", teacher="text"), RKDAngle(student="image", teacher="text")):
        term.check({"student": Sized(4)})
        term(context(LossContract().model(), rows)).backward()
    assert rows[IMAGE].grad is not None and rows[TEXT].grad is None
    with pytest.raises(ValueError, match="there is no encoder 't'"):
        RKDAngle(student="image", teacher="text@t").check({"student": Sized(4)})


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="anchors_at_once: got 0"):
        RKDAngle(student="image", teacher="text", anchors_at_once=0)
    with pytest.raises(ValueError, match="variant: got 'paper'"):
        RKDDistance(student="image", teacher="text", variant="paper")  # type: ignore[arg-type]  # wrong on purpose
