"""SEED: by hand, its queue, and batches that do not divide it."""

import math

import pytest
import torch

from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective
from hypvl.losses.seed import SEED, seed_loss
from tests.losses.contract import LossContract
from tests.losses.sized import Sized
from tests.losses.toy import context, random_features


class TestSEED(LossContract):
    permutes = False  # the order of rows in the queue is that of the batch

    def make(self) -> LossTerm:
        return SEED(
            student="image",
            teacher="text",
            dim=4,
            queue_size=120,
            teacher_temperature=0.3,
            detach_teacher=False,
        )

    def test_the_value_does_not_depend_on_the_order(self) -> None:
        rows, order = self.rows(6), torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = {view: x[order] for view, x in rows.items()}
        torch.testing.assert_close(self.value(rows), self.value(shuffled))


def test_by_hand() -> None:
    """Student (1, 0), teacher (0, 1), queue: (0, 1): a = (0, 0) / T, b = (1, 1) / T: log 2. With (1, 0): a = (0, 1)."""
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    temperatures = {"student_temperature": 1.0, "teacher_temperature": 1 / math.log(3.0)}
    assert seed_loss(student, teacher, torch.tensor([[0.0, 1.0]]), **temperatures).item() == pytest.approx(
        math.log(2)
    )
    found = seed_loss(student, teacher, torch.tensor([[1.0, 0.0]]), **temperatures)  # b = log 3 (1, 0)
    assert found.item() == pytest.approx(math.log(1 + math.e) - 0.25)


def test_the_teachers_directions_enter_the_queue() -> None:
    term = SEED(student="image", teacher="text", dim=4, queue_size=8)
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    before = term.queue.rows[4:].clone()
    term.update_(context(LossContract().model(), rows))
    torch.testing.assert_close(term.queue.rows[:4], torch.nn.functional.normalize(rows[TEXT], dim=1).float())
    assert torch.equal(term.queue.rows[4:], before) and term.queue.pointer.item() == 4


def test_a_batch_that_does_not_divide_the_queue_is_refused_at_the_start() -> None:
    objective = Objective({"seed": SEED(student="image", teacher="text", dim=4, queue_size=65536)})
    objective.check_batch(512)
    with pytest.raises(
        ValueError,
        match=r"terms.seed: queue_size: got 65536, which batches of 100 samples do not divide; .* such as 65500\.",
    ):
        objective.check_batch(100)
    rows = {IMAGE: random_features(3), TEXT: random_features(3, seed=1)}
    with pytest.raises(ValueError, match="queue_size: got 8, which batches of 3"):
        SEED(student="image", teacher="text", dim=4, queue_size=8)(context(LossContract().model(), rows))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim: got 5, but the features of text:text@student have size 4"):
        SEED(student="image", teacher="text", dim=5).check({"student": Sized(4)})
    with pytest.raises(ValueError, match="student_temperature: got 0"):
        SEED(student="image", teacher="text", dim=5, student_temperature=0.0)
