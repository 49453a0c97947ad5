"""The linear layer of adapters."""

from torch import nn


class AdapterLinear(nn.Linear):
    """``nn.Linear`` whose bias is never decayed.

    Args:
        in_features, out_features: As of ``nn.Linear``.
        std: Standard deviation of normal weights, 0 = zeros, with a bias of 0; None = as ``nn.Linear`` draws both.
    """

    no_weight_decay: frozenset[str] = frozenset({"bias"})

    def __init__(self, in_features: int, out_features: int, *, std: float | None = None) -> None:
        super().__init__(in_features, out_features)
        if std is not None:
            nn.init.normal_(self.weight, std=std)
            nn.init.zeros_(self.bias)
