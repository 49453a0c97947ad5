"""Texts of different lengths in groups: the plan is the cheapest, and nothing changes but the cost."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hypvl.encoders.text import (
    TextTransformer,
    check_fit,
    group_cost,
    join_rows,
    plan_groups,
    row_starts,
    split_groups,
)

EOT = 99
LENGTHS = [5, 2, 7, 5, 3, 12, 2, 5]


def texts(lengths: list[int], *, width: int | None = None, seed: int = 0) -> Tensor:
    """Random tokens with an end, padded."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(len(lengths), max(lengths) if width is None else width, dtype=torch.int64)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(1, 99, (length,), generator=generator)
        row[length - 1] = EOT
    return rows


def model(dtype: torch.dtype = torch.float64, **options: Any) -> TextTransformer:
    torch.manual_seed(0)
    made = TextTransformer("L2_W32_A4", vocab_size=100, context_length=12, **options)
    with torch.no_grad():
        for parameter in made.parameters():  # larger than at the start, so that every part matters
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.to(dtype)


def padded(made: TextTransformer) -> TextTransformer:
    """The same computed as wide as the batch: what a device does that knows no lengths."""
    made._plan = lambda tokens, ends, lengths: [(len(tokens), tokens.shape[1])]  # type: ignore[method-assign]  # the twin
    return made


def gradients(made: TextTransformer, *inputs: Any) -> dict[str, Tensor]:
    features = made(*inputs)
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features).sin()
    (features * weights).sum().backward()
    return {"features": features.detach()} | {
        name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    """The norm of each difference, relative to the norm of what is expected."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert ((found[name] - value).norm() / value.norm()).item() <= limit, name


def test_plans_by_hand() -> None:
    lengths = [9, 2, 9, 3, 2, 9]
    assert plan_groups(lengths, cost=0) == [(2, 2), (1, 3), (3, 9)]
    assert plan_groups(lengths, cost=3) == [(3, 3), (3, 9)]  # two tokens of padding instead of a group
    assert plan_groups(lengths, cost=19) == [(6, 9)]  # 54 + 19 < 9 + 27 + 38
    assert plan_groups(np.array([4]), cost=256) == [(1, 4)]


@pytest.mark.parametrize("cost", [0, 1, 4, 17])
def test_no_cut_is_cheaper_than_the_plan(cost: int) -> None:
    rng = np.random.default_rng(cost)
    for _ in range(20):
        lengths = sorted(rng.integers(1, 9, size=rng.integers(1, 9)).tolist())

        def price(groups: list[list[int]]) -> int:
            return sum(len(group) * max(group) + cost for group in groups)

        cheapest = min(
            price([lengths[a:b] for a, b in itertools.pairwise([0, *cuts, len(lengths)])])
            for many in range(len(lengths))
            for cuts in itertools.combinations(range(1, len(lengths)), many)
        )
        plan = plan_groups(rng.permutation(lengths), cost=cost)
        assert sum(rows * length + cost for rows, length in plan) == cheapest
        assert sum(rows for rows, _ in plan) == len(lengths)


@pytest.mark.parametrize(("device", "share"), [("cpu", 1.01), ("cuda", 1.1)])
def test_one_long_caption_does_not_pad_two_thousand(device: str, share: float) -> None:
    lengths = np.random.default_rng(0).poisson(10, size=2048) + 2
    lengths[77] = 60
    plan = plan_groups(lengths, cost=group_cost(torch.device(device)))
    computed = sum(rows * length for rows, length in plan)
    assert computed <= share * lengths.sum() < 0.25 * 2048 * 60
    assert len(plan) <= 25


@pytest.mark.parametrize("lengths", [[], [0, 3]])
def test_no_texts_and_empty_texts_are_no_plan(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"lengths: got \[.*at least 1"):
        plan_groups(lengths, cost=0)


def test_rows_lie_group_after_group() -> None:
    rows = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0], [7, 8, 9, 9]])
    order, groups = torch.tensor([1, 2, 0, 3]), [(2, 2), (2, 4)]
    joined = join_rows(rows, order, groups)
    assert joined.tolist() == [4, 0, 5, 6, 1, 2, 3, 0, 7, 8, 9, 9]
    assert row_starts(order, groups).tolist() == [4, 0, 2, 8]
    first, second = split_groups(joined[:, None], groups)
    assert (first[..., 0].tolist(), second.shape) == ([[4, 0], [5, 6]], (2, 4, 1))
    assert second.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("options", [{}, {"fixed_positions": 4}, {"grad_checkpointing": True}])
def test_equal_to_padded(dtype: torch.dtype, limit: float, options: dict[str, Any]) -> None:
    tokens = texts(LENGTHS)
    expected = gradients(padded(model(dtype, **options)), tokens)
    assert_equal(gradients(model(dtype, **options), tokens), expected, limit)
    # as a GPU computes it: lengths from the loader, few groups; the order of the rows is the device's
    assert_equal(gradients(model(dtype, **options), tokens, LENGTHS), expected, limit)


def test_rows_may_come_padded_wider_and_in_any_order() -> None:
    made = model()
    tokens = texts(LENGTHS)
    shuffled = torch.tensor([3, 7, 1, 0, 6, 5, 2, 4])
    torch.testing.assert_close(made(tokens[shuffled]), made(tokens)[shuffled], rtol=0, atol=1e-12)
    narrow = tokens[[1, 4]]
    torch.testing.assert_close(made(narrow[:, :3], [2, 3]), made(narrow), rtol=0, atol=1e-12)


def test_lengths_may_count_what_follows_the_first_end() -> None:
    """The loader does not know which token ends a text; it counts up to the padding."""
    made = model()
    tokens = texts([6, 3, 4])
    tokens[0, 2] = EOT  # read out here; three more tokens follow
    torch.testing.assert_close(made(tokens, [6, 3, 4]), made(tokens), rtol=0, atol=1e-12)


def test_only_the_tokens_there_are_computed() -> None:
    tokens = texts([3] * 15 + [12])
    flops = {}
    for name, made in (("packed", model()), ("padded", padded(model()))):
        with FlopCounterMode(display=False) as counter:
            made(tokens).sum().backward()
        flops[name] = counter.get_total_flops()
    # 57 of 192 tokens (0.30), and shorter rows of attention; the last of the two MLPs sees 16 tokens in both
    assert 0.25 < flops["packed"] / flops["padded"] < 0.34


def test_bf16_equals_padded_bf16() -> None:
    tokens = texts(LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, result = padded(model(torch.float32))(tokens), model(torch.float32)(tokens)
    assert ((result - expected).norm() / expected.norm()).item() < 2**-7  # products round in another order


def test_wrong_lengths_are_named() -> None:
    made, tokens = model(), texts([3, 2])
    for wrong, words in (
        ([3], "1 numbers"),
        ([4, 2], "2 numbers from 2 to 4"),
        ([0, 3], "2 numbers from 0 to 3"),
        ([], "0 numbers"),
    ):
        with pytest.raises(
            ValueError, match=rf"lengths are {words}.* but 2 numbers from 1 to 3 are expected"
        ):
            made(tokens, wrong)
    with pytest.raises(RuntimeError, match="a text is longer than they say"):
        made(tokens, [2, 2])


def test_texts_that_fit_pass() -> None:
    check_fit(torch.tensor([1, 1, 4]), [(2, 2), (1, 5)])
    with pytest.raises(RuntimeError, match="longer than they say"):
        check_fit(torch.tensor([1, 2, 4]), [(2, 2), (1, 5)])


def test_a_block_may_go_on_with_the_tokens_that_are_read_out() -> None:
    block, groups = model().resblocks[-1], [(2, 2), (1, 5)]
    x = torch.randn(9, 32, dtype=torch.float64)
    kept = torch.tensor([8, 1, 3])
    torch.testing.assert_close(block(x, groups, kept), block(x, groups)[kept], rtol=0, atol=1e-12)
