"""Arithmetic in fp32 or better under any autocast and matrix-product settings; stable norms and divisions."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_IEEE = ("none", "ieee")  # "none" is torch's default: no reduced precision


def full_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs in fp32 or better.

    Autocast is off inside, for the devices of the tensors passed in, and every floating tensor argument,
    positional or by name, is upcast to at least fp32 (fp64 stays fp64). Gradients flow back through the
    upcast. Nothing global is changed once the call returns or raises.
    """

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = {v.device.type for v in (*args, *kwargs.values()) if isinstance(v, Tensor)}
        with autocast_off(devices):
            return fn(*map(_upcast, args), **{k: _upcast(v) for k, v in kwargs.items()})

    return cast(Callable[P, R], wrapper)


@contextlib.contextmanager
def autocast_off(devices: set[str]) -> Iterator[None]:
    """Turn autocast off for these device types, e.g. ``{"cuda"}``, and back as it was afterwards."""
    with contextlib.ExitStack() as stack:
        for device in devices:
            if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def working_dtype(device: torch.device) -> torch.dtype:
    """fp64 where the device has it, else fp32 (Apple's MPS); for O(B x D) work on rows."""
    return torch.float32 if device.type == "mps" else torch.float64


def inner_products(x: Tensor, y: Tensor) -> Tensor:
    """All inner products of rows, (..., B1, D), (..., B2, D) -> (..., B1, B2), in IEEE arithmetic.

    ``torch.set_float32_matmul_precision``, TF32 and bf16 products change neither the values nor the
    gradients: the settings are put aside for each product, forward and backward, and then restored.
    """
    return cast(Tensor, _Product.apply(x, y.transpose(-1, -2)))


class _Product(torch.autograd.Function):
    """``a @ b`` whose backward products are IEEE too; differentiable twice."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with autocast_off({a.device.type}), ieee_products(a.dtype):
            return a @ b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        a, b = ctx.saved_tensors
        grad_a = _Product.apply(grad, b.transpose(-1, -2)) if ctx.needs_input_grad[0] else None
        grad_b = _Product.apply(a.transpose(-1, -2), grad) if ctx.needs_input_grad[1] else None
        return _sum_to(grad_a, a.shape), _sum_to(grad_b, b.shape)


@contextlib.contextmanager
def ieee_products(dtype: torch.dtype) -> Iterator[None]:
    """Put reduced-precision fp32 products aside; touches no setting where none is in force."""
    if dtype != torch.float32:
        yield
        return
    cuda: Any = torch.backends.cuda.matmul
    cpu: Any = torch.backends.mkldnn
    if not hasattr(cuda, "fp32_precision"):  # torch < 2.9 has one setting for all devices
        before = torch.get_float32_matmul_precision()
        try:
            if before != "highest":
                torch.set_float32_matmul_precision("highest")
            yield
        finally:
            if before != "highest":
                torch.set_float32_matmul_precision(before)
        return
    # The settings per backend are read and written, never the overall one: torch refuses to read that one
    # where a program has set the others.
    changed: list[tuple[Any, str]] = []
    try:
        for backend in (cuda, cpu.matmul):
            value = backend.fp32_precision
            if value not in _IEEE:
                backend.fp32_precision = "ieee"
                changed.append((backend, value))
        yield
    finally:
        for backend, value in changed:
            backend.fp32_precision = value


def safe_sqrt(x: Tensor) -> Tensor:
    """sqrt(x) for x > 0, and 0 with gradient 0 elsewhere (and below the normal numbers of the dtype)."""
    usable = ~(x <= torch.finfo(x.dtype).tiny)  # so that NaN stays NaN
    return torch.where(usable, torch.where(usable, x, 1.0).sqrt(), 0.0)


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b for b > 0, and 0 with gradient 0 elsewhere (and for b so small that b^2 underflows)."""
    usable = ~(b <= torch.finfo(b.dtype).tiny ** 0.5)
    return torch.where(usable, a / torch.where(usable, b, 1.0), 0.0)


def perpendicular(y: Tensor, axis: Tensor) -> Tensor:
    """The part of ``y`` perpendicular to ``axis``, (..., D), accurate even where it is a rounding error of y.

    y - k axis with an exact product, then the same again with the remainder: the rounding of k leaves a part along the
    axis, which the second step removes.
    """
    square = axis.square().sum(-1, keepdim=True)
    rest = y - safe_divide((y * axis).sum(-1, keepdim=True), square) * axis
    with torch.no_grad():
        high, low = exact_product(safe_divide((y * axis).sum(-1, keepdim=True), square), axis)
        exact = (y - high) - low
        exact = exact - safe_divide((exact * axis).sum(-1, keepdim=True), square) * axis
        correction = exact - rest
    return rest + correction


def exact_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(high, low) with high + low = a b exactly and high = a * b as rounded (Dekker's product)."""
    high = a * b
    a_high, b_high = _upper_half(a), _upper_half(b)
    a_low, b_low = a - a_high, b - b_high
    return high, a_low * b_low - (((high - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _upper_half(x: Tensor) -> Tensor:
    """The leading half of the significand, so that products of halves are exact."""
    scaled = x * (2.0**27 + 1 if x.dtype == torch.float64 else 2.0**12 + 1)
    return scaled - (scaled - x)


def mean(x: Tensor) -> Tensor:
    """Mean over the last dimension but one, (..., P, D) -> (..., D); its sum does not overflow."""
    return x.mean(-2, dtype=working_dtype(x.device)).to(x.dtype)


def line(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    """Points from ``start`` (weight 0) to ``end`` (weight 1): (D,), (D,), (T,) -> (T, D), the wider dtype."""
    dtype = torch.promote_types(start.dtype, end.dtype)
    return torch.lerp(start.to(dtype), end.to(dtype), weights.to(dtype)[:, None])


@full_precision
def straight_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| of all pairs, without a product that loses digits: (..., B1, D), (..., B2, D) -> (..., B1, B2).

    Squares do not overflow: where a component is beyond 2^60 (fp64: 2^500), distances are taken at another scale, at
    which those below about 1e-36 of that component become 0.
    """
    if not x.numel() or not y.numel():
        return torch.cdist(x, y)
    largest = torch.maximum(x.detach().abs().amax(), y.detach().abs().amax())
    least = 60 if x.dtype == torch.float32 else 500
    scale = torch.exp2((largest.log2() - least).ceil().clamp(min=0))  # a power of two: nothing is rounded
    return torch.cdist(x / scale, y / scale, compute_mode="donot_use_mm_for_euclid_dist") * scale


def _upcast(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value


def _sum_to(grad: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Undo the broadcasting of leading dimensions in a product."""
    return None if grad is None else grad.sum_to_size(shape)
