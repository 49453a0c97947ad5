"""Sine-cosine positions against values computed by hand."""

import math

import pytest
import torch

from hypvl.encoders.positions import sincos_2d


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
    # Turning the picture by its diagonal swaps the halves.
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
