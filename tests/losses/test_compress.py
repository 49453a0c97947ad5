"""CompRess: by hand, one memory and two, and how they are filled."""

import math
from typing import Any

import pytest
import torch

from hypvl import distributed
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.compress import CompRess1q, CompRess2q, compress_loss
from tests.losses.contract import LossContract
from tests.losses.sized import Sized
from tests.losses.toy import context, random_features
from tests.ranks import run_ranks

SMALL: dict[str, Any] = {"student": "image", "teacher": "text", "queue_size": 9, "temperature": 0.5}


class TestCompRess1q(LossContract):
    permutes = False  # the order of rows in the memory is that of the batch

    def make(self) -> LossTerm:
        return CompRess1q(**SMALL, dim=4, detach_teacher=False)


class TestCompRess2q(LossContract):
    permutes = False

    def make(self) -> LossTerm:
        return CompRess2q(**SMALL, student_dim=4, teacher_dim=4, detach_teacher=False)


def test_by_hand() -> None:
    """P = (3/4, 1/4), Q = (1/2, 1/2)."""
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    student, teacher = torch.tensor([[5.0, 5.0]]), torch.tensor([[2.0, 0.0]])
    value = compress_loss(student, teacher, memory, memory, temperature=1 / math.log(3.0))
    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert compress_loss(teacher, teacher, memory, memory, temperature=0.04).item() == pytest.approx(
        0.0, abs=1e-6
    )


def test_memories_wrap_in_the_middle_of_a_batch() -> None:
    term = CompRess2q(**SMALL, student_dim=4, teacher_dim=3)
    for step in range(2):
        rows = {IMAGE: random_features(6, seed=step), TEXT: random_features(6, 3, seed=10 + step)}
        term(context(LossContract().model(), rows))
        term.update_(context(LossContract().model(), rows))
    for memory, view in ((term.student_memory, IMAGE), (term.teacher_memory, TEXT)):
        last = torch.nn.functional.normalize(rows[view], dim=1).float()
        assert memory.pointer.item() == 3
        torch.testing.assert_close(memory.rows[[6, 7, 8, 0, 1, 2]], last)


def _memories(variant: str) -> torch.Tensor:
    term = CompRess1q(**SMALL, dim=4, variant=variant)  # type: ignore[arg-type]  # one of the two
    world, rank = distributed.world_size(), distributed.rank()
    rows = {v: random_features(4, seed=i).chunk(world)[rank] for i, v in enumerate((IMAGE, TEXT))}
    term.update_(context(LossContract().model(), rows))
    return term.teacher_memory.rows


def test_in_itra_each_rank_remembers_its_own_rows() -> None:
    one = _memories("original")
    for rank, rows in enumerate(run_ranks(2, _memories, "itra")):
        torch.testing.assert_close(rows[:2], one[2 * rank : 2 * rank + 2])
        assert torch.equal(rows[2:], CompRess1q(**SMALL, dim=4).teacher_memory.rows[2:])


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim: got 5, but the features of text:text@student have size 4"):
        CompRess1q(**SMALL, dim=5).check({"student": Sized(4)})
    two = CompRess2q(student="image", teacher="image@t", student_dim=4, teacher_dim=6, queue_size=9)
    two.check({"student": Sized(4), "t": Sized(6)})
    with pytest.raises(
        ValueError, match=r"teacher_dim: got 6, but the features of image:image@t have size 7"
    ):
        two.check({"student": Sized(4), "t": Sized(7)})
    with pytest.raises(ValueError, match="teacher_dim: got 0"):
        CompRess2q(**SMALL, student_dim=4, teacher_dim=0)
