"""Tables of learned positions, stretched for longer texts."""

import pytest
import torch

from hypvl.models.positions import stretch_positions


def test_a_stretched_table_by_hand() -> None:
    table = torch.tensor([[0.0, 1.0], [4.0, 1.0], [8.0, 5.0]], dtype=torch.float64)
    result = stretch_positions(table, keep=1, factor=4)
    first = [[0.0, 1.0]]
    between = [[4.0, 1.0], [5.0, 2.0], [6.0, 3.0], [7.0, 4.0]]
    beyond = [[8.0, 5.0], [9.0, 6.0], [10.0, 7.0], [11.0, 8.0]]  # as from 4 to 8, from 1 to 5
    assert result.tolist() == [*first, *between, *beyond]


def test_77_become_248_and_old_rows_are_every_fourth() -> None:
    table = torch.randn(77, 6, generator=torch.Generator().manual_seed(0))
    result = stretch_positions(table)
    assert result.shape == (248, 6)
    assert torch.equal(result[:20], table[:20])
    assert torch.equal(result[20::4], table[20:])
    assert torch.equal(stretch_positions(table, factor=1), table)
    assert torch.equal(stretch_positions(table, keep=77), table)
    assert stretch_positions(table.bfloat16()).dtype == torch.bfloat16


def test_a_straight_line_stays_straight() -> None:
    line = torch.arange(9.0, dtype=torch.float64)[:, None]
    result = stretch_positions(line, keep=0, factor=3)[:, 0]
    torch.testing.assert_close(result, torch.arange(27.0, dtype=torch.float64) / 3)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 4), {}, r"table: got shape \(1, 4\)"),
        ((2, 3, 4), {}, r"table: got shape \(2, 3, 4\)"),
        ((10, 4), {"keep": 11}, "got 11, 4; expected keep from 0 to 10"),
        ((30, 4), {"factor": 0}, "got 20, 0"),
    ],
)
def test_tables_that_cannot_be_stretched(
    shape: tuple[int, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stretch_positions(torch.zeros(shape), **options)
