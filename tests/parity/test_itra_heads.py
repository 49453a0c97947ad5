"""itra_losses.json: the DINO head and its prototypes."""

from typing import Any

import pytest
import torch
from torch import nn

from hypvl.encoders.mlp_heads import DINOHead
from tests.parity.reference import cases, load


@pytest.mark.parametrize("case", cases("itra_losses", "dino_head"))
def test_dino_head(case: dict[str, Any]) -> None:
    inputs = load("itra_losses")["inputs"]  # type: ignore[index]  # the case is there
    x = torch.tensor(inputs[case["input"]], dtype=torch.float64)
    prototypes = torch.tensor(case["prototypes_v"], dtype=torch.float64)
    head = DINOHead(
        x.shape[1],
        prototypes.shape[1],
        layers=case["nlayers"],
        hidden=case["hidden_dim"],
        prototypes=len(prototypes),
    ).double()
    linear = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, given in zip(linear, case["mlp"], strict=True):
            layer.weight.copy_(torch.tensor(given["weight"], dtype=torch.float64))
            layer.bias.copy_(torch.tensor(given["bias"], dtype=torch.float64))
        assert head.prototypes is not None
        head.prototypes.weight_v.copy_(prototypes)
        features = head(x)
        logits = head.prototypes(features)
    for name, value in (("bottleneck", features), ("logits", logits)):
        torch.testing.assert_close(value, torch.tensor(case[name], dtype=torch.float64), rtol=1e-9, atol=1e-9)
