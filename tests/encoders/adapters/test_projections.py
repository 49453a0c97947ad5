import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hypvl.encoders.adapters.projections import LowRank, Scaling, at_projection


def test_low_rank_by_hand() -> None:
    part = LowRank(2, 3, rank=1, alpha=4.0)
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0])
    assert torch.equal(part(x, y), y)
    with torch.no_grad():
        part.lora_A.copy_(torch.tensor([[3.0, 1.0]]))  # A x = 5
        part.lora_B.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
    torch.testing.assert_close(part(x, y), torch.tensor([30.0, 20.0, 10.0]))  # alpha / rank = 4


def test_scaling_by_hand_merges_the_bias_too() -> None:
    part = Scaling(2)
    with torch.no_grad():
        part.scale.copy_(torch.tensor([[2.0], [-1.0]]))
    weight, bias, x = (
        torch.tensor([[1.0, 1.0], [0.0, 3.0]]),
        torch.tensor([5.0, 7.0]),
        torch.tensor([1.0, 2.0]),
    )
    expected = torch.tensor([16.0, -13.0])
    torch.testing.assert_close(part(x, F.linear(x, weight, bias)), expected)
    part.merge_(weight, bias)
    torch.testing.assert_close(F.linear(x, weight, bias), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_a_third_of_a_fused_projection(bias: bool) -> None:
    linear, part, x = nn.Linear(2, 6, bias=bias), Scaling(2), torch.randn(4, 2)
    with torch.no_grad():
        part.scale.mul_(3)
        plain = linear(x)
        changed = at_projection(part, 1, linear, (x,), plain)
        torch.testing.assert_close(changed, plain * torch.tensor([1.0, 1.0, 3.0, 3.0, 1.0, 1.0]))
        part.merge_(linear.weight.chunk(3)[1], linear.bias.chunk(3)[1] if bias else None)
        torch.testing.assert_close(linear(x), changed)


def test_dropout_acts_on_the_low_rank_path_in_training_only() -> None:
    part = LowRank(50, 3, dropout=0.9)
    nn.init.ones_(part.lora_B)
    x, y = torch.ones(2, 50), torch.zeros(2, 3)
    assert not torch.allclose(part(x, y)[0], part(x, y)[1])
    part.eval()
    torch.testing.assert_close(part(x, y)[0], part(x, y)[1])


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="rank: got 0; expected a whole number of at least 1"):
        LowRank(2, 2, rank=0)
    with pytest.raises(ValueError, match="alpha: got 0; expected a number above 0"):
        LowRank(2, 2, alpha=0)
    with pytest.raises(ValueError, match="dropout: got 1; expected a number of at least 0 and below 1"):
        LowRank(2, 2, dropout=1)
