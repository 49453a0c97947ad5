"""Stable building blocks of hyperbolic geometry: series, and distances and angles after a matrix product.

Lengths here are in units of the radius of curvature: u = sqrt(c) x, so that the formulas are those of c = 1.
n = |u|, sigma = sqrt(1 + n^2) (the time component), Klein coordinates u / sigma.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl.numerics import exact_product, inner_products, working_dtype

# Points nearer each other than this (in units of the radius of curvature) count as one where an angle is asked
# for, and nearer the root as the root: the gradient of the angle grows as 1 / distance and has to fit in fp32.
ROOT_RADIUS = 1e-25
#: How far from their centre points of flat space count as lying where they are. Sums over 10^6 of their squared
#: distances, at any scale of the scores, are finite.
REACH = {torch.float32: 1e15, torch.float64: 1e140}
#: fp64 components that no product of curved space or angle takes; squares of products of two such points still fit.
LARGEST = 1e70


def sinhc(square: Tensor) -> Tensor:
    """sinh(r) / r as a smooth function of r^2 >= 0; 1 at 0."""
    small = square < 1e-2
    s = torch.where(small, square, 0.0)
    series = 1 + s / 6 * (1 + s / 20 * (1 + s / 42 * (1 + s / 72 * (1 + s / 110))))
    r = torch.where(small, 1.0, square).sqrt()
    return torch.where(small, series, _sinh(r) / r)


def asinhc(square: Tensor) -> Tensor:
    """asinh(r) / r as a smooth function of r^2 >= 0; 1 at 0."""
    small = square < 1e-2
    s = torch.where(small, square, 0.0)
    series = torch.zeros_like(s)
    # Coefficients (-1)^k (2k)! / (4^k k!^2 (2k + 1)), highest first.
    for a in (6435 / 557056, -143 / 10240, 231 / 13312, -63 / 2816, 35 / 1152, -5 / 112, 3 / 40, -1 / 6, 1.0):
        series = series * s + a
    r = torch.where(small, 1.0, square).sqrt()
    return torch.where(small, series, _asinh(r) / r)


def _sinh(r: Tensor) -> Tensor:
    """sinh of r >= 0.1; in a graph that other programs run by exponentials, as onnxruntime has no Sinh in fp64."""
    return (r.exp() - (-r).exp()) / 2 if torch.compiler.is_exporting() else torch.sinh(r)


def _asinh(r: Tensor) -> Tensor:
    """asinh of r >= 0.1; in an exported graph by a logarithm, for r up to the root of the range, as :func:`_sinh`."""
    return (r + (1 + r.square()).sqrt()).log() if torch.compiler.is_exporting() else torch.asinh(r)


def is_root(square: Tensor) -> Tensor:
    """Where a point with this n^2 counts as the root, which no angle can be asked for."""
    return square.detach() <= ROOT_RADIUS**2


def within_reach(x: Tensor) -> Tensor:
    """Rows no longer than :data:`REACH` of their dtype: longer ones are brought to it, in their direction.

    Sums over many squares of distances between such rows, and their gradients, are finite. Rows within reach stay as
    they are to the last bit, and rows that are not finite stay that. (..., D) -> (..., D), fp32 or fp64.
    """
    limit, far, work = REACH[x.dtype], x.detach(), working_dtype(x.device)
    if x.dtype == work:
        largest = far.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(work).tiny)
        length = torch.linalg.vector_norm(far / largest, dim=-1, keepdim=True) * largest  # without overflow
    else:  # fp32, whose squares cannot overflow in fp64
        length = torch.linalg.vector_norm(far, dim=-1, keepdim=True, dtype=work)
    return x * torch.where(length > limit, limit / length, 1.0).to(x.dtype)


def about_common_centre(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B1, D), (B2, D) less their common mean, :func:`within_reach`: no distance within reach is changed.

    Squared distances through products then lose fewer digits.
    """
    work = working_dtype(x.device)
    total = x.detach().sum(0, dtype=work) + y.detach().sum(0, dtype=work)
    centre = (total / (len(x) + len(y))).to(x.dtype)
    near = within_reach(x - centre)
    return near, near if y is x else within_reach(y - centre)


def refuse_beyond(*points: Tensor) -> None:
    """Raise ValueError for components beyond :data:`LARGEST`, finite or infinite, which fp64 alone has.

    A device is waited for only where the dtype is fp64, so that fp32 never is.
    """
    for name, x in zip(("x", "y"), points, strict=False):
        if x.dtype == torch.float64 and x.numel() and bool(x.detach().abs().amax() > LARGEST):
            raise ValueError(f"{name}: got a component beyond {LARGEST:g}, expected smaller ones.")


def square_of(x: Tensor) -> Tensor:
    """|x|^2, (..., D) -> (..., 1)."""
    return x.square().sum(-1, keepdim=True)


def unit(x: Tensor, square: Tensor) -> Tensor:
    """x / |x| from |x|^2 (..., 1), and 0 with gradient 0 at the root."""
    at_root = is_root(square)
    return torch.where(at_root, 0.0, x / torch.where(at_root, 1.0, square).sqrt())


def time_of(square: Tensor) -> Tensor:
    """sigma = sqrt(1 + n^2) from n^2."""
    return (1 + square).sqrt()


def lorentz_products(x: Tensor, y: Tensor, c: Tensor, *, dtype: torch.dtype) -> Tensor:
    """x.y - t(x) t(y) of all pairs, (..., B1, D), (..., B2, D) -> (..., B1, B2), by one product in ``dtype``.

    They saturate at half of the largest number of that dtype, there with gradient 0.

    Args:
        x, y: Points, in the working dtype.
        c: (..., 1, 1) or 0-dim, in the working dtype.
        dtype: Of the result.
    """
    return cast(Tensor, _LorentzProducts.apply(x, y, c, dtype))


class _LorentzProducts(torch.autograd.Function):
    """The gradient goes through no Klein coordinate, whose own gradient overflows far from the root."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
        t_x, klein_x = klein(x, c)
        t_y, klein_y = klein(y, c)
        largest = torch.finfo(dtype).max / 2
        # Products of Klein coordinates stay in (-1, 1), so that only the result itself could overflow.
        below_one = 1 - inner_products(klein_x.to(dtype), klein_y.to(dtype))  # (..., B1, B2)
        near_x, near_y = t_x.clamp(max=largest).to(dtype), t_y.clamp(max=largest).to(dtype)
        out = (below_one * -near_x * near_y.transpose(-1, -2)).clamp(min=-largest)
        ctx.save_for_backward(x, y, c, t_x, t_y, out <= -largest)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, c, t_x, t_y, saturated = ctx.saved_tensors
        grad = grads[0].to(x.dtype).masked_fill(saturated, 0.0)  # (..., B1, B2)
        back = grad.transpose(-1, -2)
        to_x, to_y = (grad @ t_y) / t_x, (back @ t_x) / t_y  # (..., B1, 1), (..., B2, 1)
        grad_c = sum((part / (2 * c.square())).sum_to_size(c.shape) for part in (to_x, to_y))
        return grad @ y - to_x * x, back @ x - to_y * y, cast(Tensor, grad_c), None


def distance_from_product(product: Tensor, n2_x: Tensor, n2_y: Tensor, curv: Tensor) -> Tensor:
    """Distances from the inner products of Klein coordinates.

    cosh d - 1 = sigma tau (A + B - A B - product), A = 1 - 1/sigma, B = 1 - 1/tau: small where the points are
    near the root, so that the result keeps its relative precision there.

    Args:
        product: (..., B1, B2), as the result, in the dtype of the result.
        n2_x, n2_y: n^2 of the rows, (..., B1, 1), and of the columns, (..., 1, B2), working dtype.
        curv: c, (..., 1, 1) or 0-dim.
    """
    sigma, tau = time_of(n2_x), time_of(n2_y)
    # 1 - 1/sigma without cancellation
    a, b = n2_x / (sigma * (sigma + 1)), n2_y / (tau * (tau + 1))
    return cast(Tensor, _Distance.apply(product, a, b, sigma, tau, curv))


class _Distance(torch.autograd.Function):
    """One pass over the pairs in fp64 blocks; keeps two (B1, B2) matrices instead of one per operation."""

    @staticmethod
    def forward(
        ctx: Any, product: Tensor, a: Tensor, b: Tensor, sigma: Tensor, tau: Tensor, curv: Tensor
    ) -> Tensor:
        defect, out = torch.empty_like(product), torch.empty_like(product)
        for rows in blocks(product):
            z = b * (1 - a[..., rows, :])
            z += a[..., rows, :]
            z -= product[..., rows, :]
            z.clamp_(min=0)
            defect[..., rows, :] = z
            z.mul_(tau).mul_(sigma[..., rows, :])  # cosh d - 1
            root = (z + 2).mul_(z).sqrt_()  # sinh d
            out[..., rows, :] = _length(root.add_(z), curv, exact=out.dtype == z.dtype)
        ctx.save_for_backward(defect, out, sigma, tau, curv)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        defect, out, sigma, tau, curv = ctx.saved_tensors
        grad_product = torch.empty_like(defect)
        grad_a, grad_sigma = torch.empty_like(sigma), torch.empty_like(sigma)
        grad_b, grad_tau = torch.zeros_like(tau), torch.zeros_like(tau)
        for rows in blocks(defect):
            s = sigma[..., rows, :]
            z = defect[..., rows, :] * tau * s
            root = (z + 2).mul_(z).sqrt_()
            w = torch.where(root > 0, grad[..., rows, :] / (root * curv.sqrt()), 0.0)  # d loss / d z
            grad_a[..., rows, :] = w.sum(-1, keepdim=True) * s
            grad_b += w.sum(-2, keepdim=True) * tau
            z *= w
            grad_sigma[..., rows, :] = z.sum(-1, keepdim=True) / s
            grad_tau += z.sum(-2, keepdim=True) / tau
            grad_product[..., rows, :] = w.mul_(tau).mul_(s).neg_()
        grad_curv = (-0.5 * grad.to(curv.dtype) * out / curv).sum_to_size(curv.shape)
        return grad_product, grad_a, grad_b, grad_sigma, grad_tau, grad_curv


def _length(w: Tensor, curv: Tensor, *, exact: bool) -> Tensor:
    """log(1 + w) / sqrt(c).

    A distance of 20 rounded once is already off by 10 eps in its cosh. Where the result has the working dtype
    (``exact``), the errors of the logarithm, the root and the quotient are therefore computed and taken off.
    """
    unit, root = torch.log1p(w), curv.sqrt()
    d = unit / root
    if not exact:
        return d
    log_error = (w - torch.expm1(unit)) / (1 + w)
    high, low = exact_product(d, root)
    square_high, square_low = exact_product(root, root)
    root_error = ((curv - square_high) - square_low) / (2 * root)
    return d + (((unit - high) - low) + log_error - d * root_error) / root


def angle_from_product(product: Tensor, n2_x: Tensor, n2_y: Tensor) -> Tensor:
    """Exterior angles in [0, pi] at x_i towards y_j from the cosines of the angles between them at the root.

    phi = atan2(mu q / sigma, mu g - alpha) with g the cosine, q the sine, alpha = n_x / sigma and
    mu = n_y / tau the Klein radii. pi / 2 with gradient 0 where undefined (x_i the root, or y_j = x_i).

    Args:
        product: Cosines g, as the result (..., B1, B2) and in its dtype; 0 for a row or column at the root.
        n2_x, n2_y: As for :func:`distance_from_product`.
    """
    sigma, tau = time_of(n2_x), time_of(n2_y)
    alpha, mu = radius(n2_x) / sigma, radius(n2_y) / tau
    return cast(Tensor, _Angle.apply(product, alpha, mu, 1 / sigma))


def flat_angle_from_product(product: Tensor, n2_x: Tensor, n2_y: Tensor) -> Tensor:
    """Exterior angles in flat space, atan2(m q, m g - n): as :func:`angle_from_product` for n = |x|, m = |y|."""
    return cast(Tensor, _Angle.apply(product, radius(n2_x), radius(n2_y), torch.ones_like(n2_x)))


def radius(square: Tensor) -> Tensor:
    """n from n^2, and 0 with gradient 0 at the root."""
    at_root = is_root(square)
    return torch.where(at_root, 0.0, torch.where(at_root, 1.0, square).sqrt())


class _Angle(torch.autograd.Function):
    """atan2(s mu q, mu g - alpha), q = sqrt(1 - g^2); keeps one (B1, B2) matrix."""

    @staticmethod
    def forward(ctx: Any, product: Tensor, alpha: Tensor, mu: Tensor, s: Tensor) -> Tensor:
        out = torch.empty_like(product)
        for rows in blocks(product):
            _, opposite, adjacent = _legs(product, alpha, mu, s, rows)
            out[..., rows, :] = torch.atan2(opposite, adjacent)
            out[..., rows, :].masked_fill_((opposite == 0) & (adjacent == 0), torch.pi / 2)
        ctx.save_for_backward(product, alpha, mu, s)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        product, alpha, mu, s = ctx.saved_tensors
        grad_product = torch.empty_like(product)
        grad_alpha, grad_s, grad_mu = torch.empty_like(alpha), torch.empty_like(s), torch.zeros_like(mu)
        for rows in blocks(product):
            g = product[..., rows, :].to(mu.dtype).clamp(-1, 1)
            q, opposite, adjacent = _legs(product, alpha, mu, s, rows)
            square = opposite.square().addcmul_(adjacent, adjacent)
            w = torch.where(square > 0, grad[..., rows, :] / square, 0.0)
            a, s_rows = alpha[..., rows, :], s[..., rows, :]
            wq = w * q
            grad_alpha[..., rows, :] = (wq * mu).sum(-1, keepdim=True) * s_rows
            grad_mu -= (wq * (a * s_rows)).sum(-2, keepdim=True)
            grad_s[..., rows, :] = (wq * adjacent * mu).sum(-1, keepdim=True)
            along = (mu - a * g).mul_(w).mul_(mu).mul_(s_rows)
            grad_product[..., rows, :] = torch.where(q > 0, -along / q, 0.0)
        return grad_product, grad_alpha, grad_mu, grad_s


def _legs(
    product: Tensor, alpha: Tensor, mu: Tensor, s: Tensor, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """q, and the two arguments of atan2, for some rows in the working dtype."""
    g = product[..., rows, :].to(mu.dtype).clamp(-1, 1)
    q = ((1 - g) * (1 + g)).sqrt_()
    return q, q * mu * s[..., rows, :], g.mul_(mu).sub_(alpha[..., rows, :])


def blocks(pairs: Tensor) -> Iterator[slice]:
    """Slices of the rows of (..., B1, B2): blocks that stay in a processor's cache, larger ones on a device."""
    block = 2**17 if pairs.device.type == "cpu" else 2**24
    B1 = pairs.shape[-2]
    step = max(1, block * B1 // max(1, pairs.numel()))
    return (slice(start, start + step) for start in range(0, B1, step))


def in_dtype_of(value: Tensor, *inputs: Tensor) -> Tensor:
    """A value in the dtype that the inputs promote to."""
    dtype = inputs[0].dtype
    for x in inputs[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return value.to(dtype)


def klein(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Time components (..., 1) and Klein coordinates in units of the radius of curvature (..., D)."""
    t = (1 / c + square_of(x)).sqrt()
    return t, x / t
