"""fp32 or better whatever autocast and the matrix-product settings say; guarded roots, exact perpendiculars."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.lorentz import pairwise_dist
from hypvl.numerics import full_precision, inner_products, perpendicular, safe_divide, safe_sqrt
from tests.geometry import exact

# torch < 2.9 has no setting for the second
BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))


@full_precision
def product(x: Tensor, *, other: Tensor, note: str = "") -> Tensor:
    return x @ other


@pytest.fixture
def lowest() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The settings and the dtype in force at each matrix product, in the backward pass too."""
    seen: list[tuple[Any, ...]] = []
    plain = torch.Tensor.__matmul__

    def watched(a: Tensor, b: Tensor) -> Tensor:
        out = plain(a, b)
        seen.append((*(backend.fp32_precision for backend in BACKENDS), out.dtype))
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    return seen


def test_inputs_are_upcast_by_position_and_by_name() -> None:
    low = torch.ones(2, 2, dtype=torch.bfloat16)
    assert product(low, other=low).dtype == torch.float32
    assert product(low.double(), other=low.double()).dtype == torch.float64
    ids = torch.arange(3)
    assert full_precision(lambda x: x)(ids) is ids


def test_autocast_is_off_inside_and_on_again_outside() -> None:
    # 1 + 2^-12 needs 13 bits: bf16 (8 bits) would round it to 1.
    x = torch.tensor([[1.0 + 2**-12]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(x, other=torch.ones(1, 1)).item() == x.item()
        assert torch.is_autocast_enabled("cpu")
        assert (x @ torch.ones(1, 1)).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="shapes"):
            product(x, other=torch.ones(2, 1))
        assert torch.is_autocast_enabled("cpu")


def test_gradients_flow_back_through_the_upcast() -> None:
    x = torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True)
    product(x, other=torch.tensor([[2.0], [3.0]])).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.tolist() == [[2.0, 3.0]]


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch < 2.9")
def test_products_are_ieee_forward_and_backward(lowest: None, products: list[tuple[Any, ...]]) -> None:
    assert tuple(b.fp32_precision for b in BACKENDS) == ("tf32", "bf16")
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = pairwise_dist(x, y, curv=1.0)
        out.sum().backward()  # inside autocast, as some programs do
    assert products == [("ieee", "ieee", torch.float32)] * 3
    # Nothing is left changed, not after an error either.
    with pytest.raises(RuntimeError):
        inner_products(torch.ones(2, 3), torch.ones(2, 4))
    assert tuple(b.fp32_precision for b in BACKENDS) == ("tf32", "bf16")
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch < 2.9")
def test_works_where_a_program_sets_single_backends(products: list[tuple[Any, ...]]) -> None:
    """torch then refuses to read the overall setting."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        inner_products(torch.ones(1, 2), torch.ones(1, 2))
        assert [cuda for cuda, _, _ in products] == ["ieee"]
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_inner_products_and_their_gradients() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    assert inner_products(x, y).tolist() == [[11.0], [-4.0]]
    assert torch.autograd.gradcheck(inner_products, (x, y))
    assert torch.autograd.gradgradcheck(inner_products, (x, y))
    batch = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(inner_products, (batch, y))  # y is broadcast over the batch


def test_guarded_root_and_quotient() -> None:
    x = torch.tensor([-1.0, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    root = safe_sqrt(x)
    assert root.tolist() == [0.0, 0.0, 2.0]
    assert torch.autograd.grad(root.sum(), x)[0].tolist() == [0.0, 0.0, 0.25]
    quotient = safe_divide(torch.ones_like(x), x)
    assert quotient.tolist() == [0.0, 0.0, 0.25]
    assert torch.autograd.grad(quotient.sum(), x)[0].tolist() == [0.0, 0.0, -1 / 16]


def test_perpendicular_keeps_its_digits_far_below_the_rounding_of_its_argument() -> None:
    """y = 3 x + a perpendicular part about 1e-13 of it: a plain projection keeps 3 digits of that."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, generator=generator, dtype=torch.float64)
    y = 3 * x + 1e-13 * torch.randn(8, generator=generator, dtype=torch.float64)
    a, b = exact.vector(x), exact.vector(y)
    k = exact.dot(a, b) / exact.dot(a, a)
    wanted = [q - k * p for p, q in zip(a, b, strict=True)]
    assert exact.relative_error(perpendicular(y, x), wanted) < 1e-14
    assert exact.relative_error(y - (y @ x) / (x @ x) * x, wanted) > 1e-5
    inputs = (torch.randn(2, 3, dtype=torch.float64).requires_grad_(), x[:3].clone().requires_grad_())
    assert torch.autograd.gradcheck(perpendicular, inputs)
