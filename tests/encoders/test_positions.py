"""Tables of positions against values computed by hand."""

import math

import pytest
import torch

from hypvl.encoders.positions import sincos_2d, stretch_positions


def test_values_by_hand() -> None:
    table = sincos_2d(8, (2, 3))[0]  # q = 2, w = (1, 1/100)
    assert table.shape == (7, 8)
    assert not table.requires_grad
    assert table[0].tolist() == [0.0] * 8
    # Patch in row 1, column 2 is token 1 + 3 * 1 + 2; the row comes first.
    row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    column = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    torch.testing.assert_close(table[6], torch.tensor([*row, *column]), rtol=0, atol=2e-7)


def test_first_half_is_the_row_second_half_the_column() -> None:
    table = sincos_2d(16, (3, 5), prefix_tokens=0)[0].view(3, 5, 16)
    assert (table[..., :8] == table[:, :1, :8]).all()  # the same along a row
    assert (table[..., 8:] == table[:1, :, 8:]).all()  # the same along a column
    assert not torch.equal(table[0, 0, :8], table[1, 0, :8])
    # Turning the image by its diagonal swaps the halves.
    turned = sincos_2d(16, (5, 3), prefix_tokens=0)[0].view(5, 3, 16).transpose(0, 1)
    assert torch.equal(turned.roll(8, -1), table)


def test_prefix_tokens_have_no_position() -> None:
    many, none = sincos_2d(8, (2, 2), prefix_tokens=3), sincos_2d(8, (2, 2), prefix_tokens=0)
    assert torch.equal(many[:, 3:], none)
    assert many[:, :3].abs().sum() == 0


@pytest.mark.parametrize("width", [0, 2, 6, -4])
def test_width_is_a_multiple_of_four(width: int) -> None:
    with pytest.raises(ValueError, match=rf"width is {width}, .* multiple of 4"):
        sincos_2d(width, (2, 2))


def test_a_stretched_table_by_hand() -> None:
    table = torch.tensor([[0.0, 1.0], [4.0, 1.0], [8.0, 5.0]], dtype=torch.float64)
    found = stretch_positions(table, keep=1, factor=4)
    first = [[0.0, 1.0]]
    between = [[4.0, 1.0], [5.0, 2.0], [6.0, 3.0], [7.0, 4.0]]
    beyond = [[8.0, 5.0], [9.0, 6.0], [10.0, 7.0], [11.0, 8.0]]  # as from 4 to 8, from 1 to 5
    assert found.tolist() == [*first, *between, *beyond]


def test_77_become_248_and_old_rows_are_every_fourth() -> None:
    table = torch.randn(77, 6, generator=torch.Generator().manual_seed(0))
    found = stretch_positions(table)
    assert found.shape == (248, 6)
    assert torch.equal(found[:20], table[:20])
    assert torch.equal(found[20::4], table[20:])
    assert torch.equal(stretch_positions(table, factor=1), table)
    assert torch.equal(stretch_positions(table, keep=77), table)
    assert stretch_positions(table.bfloat16()).dtype == torch.bfloat16


def test_a_straight_line_stays_straight() -> None:
    line = torch.arange(9.0, dtype=torch.float64)[:, None]
    found = stretch_positions(line, keep=0, factor=3)[:, 0]
    torch.testing.assert_close(found, torch.arange(27.0, dtype=torch.float64) / 3)


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
