"""Heads of distillation: what they are made of, unit rows, prototypes."""

import pytest
import torch
from torch import nn

from hypvl.encoders.mlp_heads import DINOHead, IdentityHead, MLPHead, Prototypes


def test_no_head_hands_the_features_on() -> None:
    head, x = IdentityHead(3), torch.randn(2, 3)
    assert head(x) is x and head.out_features == 3 and not list(head.parameters())


def test_an_mlp_head_by_hand() -> None:
    head = MLPHead(2, 1, layers=2, hidden=2, batch_norm=False)
    with torch.no_grad():
        for name, value in {
            "layers.0.weight": [[1.0, 0.0], [0.0, -1.0]], "layers.0.bias": [0.5, 0.0],
            "layers.2.weight": [[2.0, 3.0]], "layers.2.bias": [1.0],
        }.items():  # fmt: skip
            head.get_parameter(name).copy_(torch.tensor(value))
    assert head(torch.tensor([[1.0, 4.0], [1.0, -4.0]])).tolist() == [[4.0], [16.0]]


def test_layers_of_an_mlp_head() -> None:
    kinds = [type(layer).__name__ for layer in MLPHead(4, 3, layers=3, hidden=5).layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer) for layer in MLPHead(4, 3, layers=1).layers] == [nn.Linear]


def test_prototypes_compare_with_directions_only() -> None:
    layer = Prototypes(2, 3)
    with torch.no_grad():
        layer.weight_v.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(layer(torch.tensor([[1.0, 2.0]])), torch.tensor([[2.2, -2.0, 0.0]]))


def test_features_of_a_dino_head_have_length_1_also_in_16_bits() -> None:
    head = DINOHead(6, 4, layers=2, hidden=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = head(torch.randn(3, 6))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))


def test_a_row_of_zeros_has_gradient_zero() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    DINOHead(4, layers=0, out_features=None)(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0] * 4] * 2


def test_weights_of_a_dino_head_start_as_published() -> None:
    torch.manual_seed(0)
    head = DINOHead(400, 300, layers=2, hidden=500, prototypes=1000)
    for layer in head.mlp:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.01) and not layer.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0, "out_features": 3}, "got 3 with layers=0, but the encoder's width is 8"),
        ({"prototypes": 1}, "prototypes: got 1; expected a whole number of at least 2"),
        ({"layers": -1}, "layers: got -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DINOHead(8, **arguments)
