"""Cross entropy with a teacher's distribution over keys: by hand, and tiled as dense."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.losses.soft_targets import Divergence, distribution_cross_entropy, soft_cross_entropy
from tests.losses.implementations import forced
from tests.losses.toy import random_features


def _unit(rows: int, dim: int, seed: int) -> Tensor:
    return F.normalize(random_features(rows, dim, seed=seed), dim=1)


def test_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): log 2, of which KL leaves 3/4 log 3/2 + 1/4 log 1/2."""
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(math.log(2), rel=1e-12)
    kl = soft_cross_entropy(student, teacher, divergence="kl").item()
    assert kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)
    assert soft_cross_entropy(teacher, teacher, divergence="kl").item() == pytest.approx(0.0, abs=1e-15)


def test_of_inner_products_by_hand() -> None:
    """s.k = (0, log 2) at temperature 1 beside an own key of log 2; t.m = (0, 0) at 1/2, own (log 3) / 2."""
    row = torch.ones(1, 1, dtype=torch.float64)
    keys = torch.tensor([[0.0], [math.log(2.0)]], dtype=torch.float64)
    value = distribution_cross_entropy(
        row, row, keys, 0 * keys, student_temperature=1.0, teacher_temperature=0.5,
        student_own=torch.tensor([math.log(2.0)], dtype=torch.float64),
        teacher_own=torch.tensor([math.log(3.0) / 2], dtype=torch.float64),
    )  # fmt: skip
    # student (2, 1, 2) / 5, teacher (3, 1, 1) / 5
    expected = -(0.6 * math.log(0.4) + 0.2 * math.log(0.2) + 0.2 * math.log(0.4))
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("divergence", ["cross_entropy", "kl"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("asks", ["student", "everything"])
def test_tiled_equals_dense(divergence: Divergence, own: bool, asks: str) -> None:
    """Student and teacher of different widths and memories of their own, as CompRess-2q has them."""
    given = [_unit(7, 4, 0), _unit(7, 3, 1), _unit(11, 4, 2), _unit(11, 3, 3)]
    given += [random_features(7, 1, seed=4)[:, 0], random_features(7, 1, seed=5)[:, 0]] if own else []
    found = []
    for implementation in ("dense", "tiled"):
        inputs = [t.clone().requires_grad_(asks == "everything" or i == 0) for i, t in enumerate(given)]
        owns = dict(zip(("student_own", "teacher_own"), inputs[4:], strict=False))
        with forced("tiled"):
            value = distribution_cross_entropy(
                *inputs[:4], student_temperature=0.07, teacher_temperature=0.04, **owns,
                divergence=divergence, implementation=implementation,
            )  # fmt: skip
        wanted = [t for t in inputs if t.requires_grad]
        found.append([value.detach(), *torch.autograd.grad(value, wanted)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in (_unit(4, 3, 0), _unit(4, 2, 1), _unit(5, 3, 2), _unit(5, 2, 3))]

    def value(*arguments: Tensor) -> Tensor:
        with forced("tiled"):
            return distribution_cross_entropy(*arguments, student_temperature=0.5, teacher_temperature=0.3)

    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("implementation", ["chosen", "tiled"])
def test_a_cold_teacher_is_info_nce_against_the_queue(implementation: str) -> None:
    """At temperature 1e-4 the teacher's target is its own key: SEED with published settings."""
    student, teacher, queue = (
        _unit(6, 8, seed).to(torch.float32).requires_grad_(seed == 0) for seed in range(3)
    )
    with forced(implementation):
        value = distribution_cross_entropy(
            student, teacher, queue, queue, student_temperature=0.07, teacher_temperature=1e-4,
            student_own=(student * teacher).sum(1), teacher_own=(teacher * teacher).sum(1),
        )  # fmt: skip
    scores = torch.cat([(student * teacher).sum(1, keepdim=True), student @ queue.mT], dim=1) / 0.07
    expected = F.cross_entropy(scores, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(v, student)[0] for v in (value, expected)))


@pytest.mark.parametrize("implementation", ["chosen", "tiled"])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e9])
def test_equal_zero_and_large_rows_are_finite(implementation: str, size: float) -> None:
    rows = (size * torch.ones(5, 4)).requires_grad_()
    for divergence in ("cross_entropy", "kl"):
        with forced(implementation):
            value = distribution_cross_entropy(
                rows, rows.detach(), torch.ones(7, 4), torch.ones(7, 4),
                student_temperature=0.07, teacher_temperature=0.01, divergence=divergence,
            )  # fmt: skip
        expected = math.log(7) if divergence == "cross_entropy" else 0.0
        assert value.item() == pytest.approx(expected, abs=1e-5)
        assert torch.autograd.grad(value, rows)[0].isfinite().all()


@pytest.mark.parametrize(("change", "words"), [
    ({"student_temperature": 0.0}, "student_temperature: got 0.0; expected a number above 0"),
    ({"teacher_temperature": -1.0}, "teacher_temperature: got -1.0; expected a number above 0"),
    ({"divergence": "js"}, "divergence: got 'js'; expected 'cross_entropy' or 'kl'"),
    ({"teacher": torch.zeros(3, 2)}, "got 2 and 3 rows with 4 and 4 keys; expected as many of both"),
    ({"teacher_keys": torch.zeros(5, 2)}, "got 2 and 2 rows with 4 and 5 keys; expected as many of both"),
    ({"student_own": torch.zeros(2)}, "student_own, teacher_own: got one; expected both or neither"),
    ({"student_own": torch.zeros(2), "teacher_own": torch.zeros(2, 1)}, r"shapes \(2,\) and \(2, 1\); expected \(2,\)"),
    ({"implementation": "sparse"}, "implementation: got 'sparse'"),
])  # fmt: skip
def test_arguments_are_checked(change: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {
        "student": torch.zeros(2, 2), "teacher": torch.zeros(2, 2), "student_keys": torch.zeros(4, 2),
        "teacher_keys": torch.zeros(4, 2), "student_temperature": 0.07, "teacher_temperature": 0.04,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        distribution_cross_entropy(**{**arguments, **change})
