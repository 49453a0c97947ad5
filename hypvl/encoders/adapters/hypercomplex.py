"""Compacter: linear layers whose matrix is a sum of Kronecker products with one rule that all of them share."""

import torch
from torch import Tensor, nn

from hypvl.checks import whole_number


def hypercomplex_matrix(rule: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``sum over m of kron(rule[m], left[m] right[m])``: (n, n, n), (n, I/n, r), (n, r, O/n) -> (I, O).

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> hypercomplex_matrix(2 * one, torch.tensor([[[1.0], [3.0]]]), one)
        tensor([[2.],
                [6.]])
    """
    blocks = left @ right  # (n, I/n, O/n)
    joined = torch.einsum("mab,mio->aibo", rule, blocks)  # (n, I/n, n, O/n)
    return joined.flatten(2).flatten(0, 1)


class SharedRule(nn.Module):
    """The rule (n, n, n) of all hypercomplex layers of an encoder, drawn with standard deviation 1e-4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.phm_rule = nn.Parameter(1e-4 * torch.randn(dim, dim, dim))


class HypercomplexLinear(nn.Module):
    """``x H + b`` with H of :func:`hypercomplex_matrix`; about 1/n of the parameters of a linear layer.

    Args:
        in_features, out_features: Both multiples of n.
        shared: The owner of the rule. It is no child of this layer, so that a state dict holds the rule once.
        rank: r of the factors.

    Raises:
        ValueError: When n does not divide a size.

    Source: Mahabadi et al. 2021 (arXiv 2106.04647), equation 4. Factors are Xavier normal.
    """

    no_weight_decay: frozenset[str] = frozenset({"b"})

    def __init__(self, in_features: int, out_features: int, *, shared: SharedRule, rank: int = 1) -> None:
        super().__init__()
        rank = whole_number("phm_rank", rank, least=1)
        n = len(shared.phm_rule)
        for size in (in_features, out_features):
            if size % n:
                raise ValueError(
                    f"reduction: the hypercomplex layers are {in_features} -> {out_features}, but phm_dim {n} has to "
                    f"divide both; expected another reduction or phm_dim."
                )
        self._shared = (shared,)  # in a tuple: not a child
        self.W_left = nn.Parameter(torch.empty(n, in_features // n, rank))
        self.W_right = nn.Parameter(torch.empty(n, rank, out_features // n))
        self.b = nn.Parameter(torch.zeros(out_features))
        for factors in (self.W_left, self.W_right):
            nn.init.normal_(factors, std=(2 / (factors.shape[1] + factors.shape[2])) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        matrix = hypercomplex_matrix(self._shared[0].phm_rule, self.W_left, self.W_right)
        return x @ matrix.to(x.dtype) + self.b.to(x.dtype)
