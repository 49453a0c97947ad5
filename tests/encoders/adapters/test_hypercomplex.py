import pytest
import torch

from hypvl.encoders.adapters.hypercomplex import HypercomplexLinear, SharedRule, hypercomplex_matrix


def test_the_matrix_is_a_sum_of_kronecker_products() -> None:
    generator = torch.Generator().manual_seed(0)
    rule, left, right = (
        torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (2, 2), (2, 5))
    )
    expected = sum(torch.kron(rule[m], left[m] @ right[m]) for m in range(3))
    torch.testing.assert_close(hypercomplex_matrix(rule, left, right), expected)


def test_the_rule_is_shared_and_saved_by_its_owner_alone() -> None:
    shared = SharedRule(2)
    first, second = (HypercomplexLinear(4, 6, shared=shared) for _ in range(2))
    assert set(first.state_dict()) == {"W_left", "W_right", "b"}
    x = torch.ones(1, 4)
    (first(x) + second(x)).sum().backward()
    both = shared.phm_rule.grad.clone()
    shared.phm_rule.grad = None
    first(x).sum().backward()
    assert not torch.allclose(both, shared.phm_rule.grad)
    with torch.no_grad():
        before = first(x)
        shared.double()
        shared.phm_rule.mul_(2)
        torch.testing.assert_close(first.double()(x.double()), 2 * before.double())


def test_sizes_have_to_be_multiples() -> None:
    with pytest.raises(ValueError, match=r"^reduction: the hypercomplex layers are 8 -> 1, but phm_dim 4"):
        HypercomplexLinear(8, 1, shared=SharedRule(4))
