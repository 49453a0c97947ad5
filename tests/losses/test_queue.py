"""The queue: where rows go, also around its end, and how it starts."""

import pytest
import torch

from hypvl.losses.queue import FeatureQueue


def ids(queue: FeatureQueue) -> list[float]:
    return queue.rows[:, 0].tolist()


def filled(size: int) -> FeatureQueue:
    queue = FeatureQueue(size, 1)
    queue.rows.copy_(-torch.arange(1.0, size + 1)[:, None])
    return queue


def test_rows_enter_in_order_and_wrap_around() -> None:
    queue = filled(5)
    queue.enqueue_(torch.tensor([[1.0], [2.0], [3.0]]))
    assert ids(queue) == [1, 2, 3, -4, -5] and queue.pointer.item() == 3
    queue.enqueue_(torch.tensor([[4.0], [5.0], [6.0]]))
    assert ids(queue) == [6, 2, 3, 4, 5] and queue.pointer.item() == 1


def test_of_more_rows_than_fit_the_last_count() -> None:
    queue = filled(3)
    queue.pointer.fill_(1)
    queue.enqueue_(torch.arange(1.0, 6.0)[:, None])  # as if entered one by one: 5 goes to (1 + 4) % 3 = 2
    assert ids(queue) == [3, 4, 5] and queue.pointer.item() == 0


def test_starts_the_same_everywhere() -> None:
    torch.manual_seed(1)
    unit, uniform = FeatureQueue(400, 12), FeatureQueue(400, 12, start="uniform")
    torch.manual_seed(2)
    assert torch.equal(unit.rows, FeatureQueue(400, 12).rows)
    torch.testing.assert_close(unit.rows.norm(dim=1), torch.ones(400))
    assert uniform.rows.abs().max() <= 0.5 and uniform.rows.square().sum(1).mean().item() == pytest.approx(
        1.0, 0.05
    )
    assert set(unit.state_dict()) == {"rows", "pointer"}


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="queue_size: got 0"):
        FeatureQueue(0, 4)
    with pytest.raises(ValueError, match="dim: got 0"):
        FeatureQueue(4, 0)
