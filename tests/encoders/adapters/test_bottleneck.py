import pytest
import torch
from torch import nn

from hypvl.encoders.adapters.bottleneck import (
    Bottleneck,
    after,
    before_norm,
    beside,
    beside_residual,
)
from hypvl.encoders.adapters.linear import AdapterLinear


def doubler(**options: float) -> Bottleneck:
    """Adds ``scale (2 relu(x) + 1)``."""
    down, up = AdapterLinear(1, 1), AdapterLinear(1, 1)
    with torch.no_grad():
        for layer, weight, bias in ((down, 1.0, 0.0), (up, 2.0, 1.0)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    return Bottleneck(down, up, **options)


def test_by_hand_and_the_scale_acts_on_the_bias() -> None:
    x = torch.tensor([[3.0], [-3.0]])
    assert doubler()(x).tolist() == [[7.0], [1.0]]
    assert doubler(scale=4.0)(x).tolist() == [[28.0], [4.0]]


def test_the_four_places() -> None:
    part, identity = doubler(), nn.Identity()
    h, x = torch.tensor([[3.0]]), torch.tensor([[10.0]])
    assert after(part, identity, (), h).item() == 10.0
    assert beside(part, identity, (x,), h).item() == 24.0
    assert [t.item() for t in beside_residual(part, identity, (h, x))] == [3.0, 31.0]
    norm = nn.LayerNorm(2)
    total = torch.tensor([[1.0, 3.0]])  # its norm is -1, 1
    (changed,) = before_norm(nn.Linear(2, 2), norm, (total,))
    assert not torch.equal(changed, total)
    scaled = nn.Identity()
    torch.testing.assert_close(
        before_norm(scaled, norm, (total,))[0], torch.tensor([[0.0, 4.0]]), atol=1e-4, rtol=0
    )


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="scale: got -1; expected a number above 0"):
        doubler(scale=-1)
    with pytest.raises(ValueError, match=r"dropout: got 1\.5"):
        doubler(dropout=1.5)
