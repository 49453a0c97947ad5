"""Hyperbolic geometry in 60-digit arithmetic, straight from the definitions (no stable rearrangement)."""

from collections.abc import Sequence

import mpmath as mp
from torch import Tensor

mp.mp.dps = 60
Vector = Sequence[mp.mpf]


def vector(x: Tensor) -> list[mp.mpf]:
    """The numbers of a 1-D tensor, exactly as rounded to its dtype."""
    return [mp.mpf(float(v)) for v in x]


def dot(x: Vector, y: Vector) -> mp.mpf:
    return mp.fdot(x, y)


def time(x: Vector, c: mp.mpf) -> mp.mpf:
    return mp.sqrt(1 / c + dot(x, x))


def cosh_dist(x: Vector, y: Vector, c: mp.mpf) -> mp.mpf:
    return c * (time(x, c) * time(y, c) - dot(x, y))


def dist(x: Vector, y: Vector, c: mp.mpf) -> mp.mpf:
    return mp.acosh(max(mp.mpf(1), cosh_dist(x, y, c))) / mp.sqrt(c)


def oxy_angle(x: Vector, y: Vector, c: mp.mpf) -> mp.mpf:
    """acos of (t(y) + c <x, y> t(x)) / (|x| sqrt((c <x, y>)^2 - 1))."""
    q = -cosh_dist(x, y, c)
    cosine = (time(y, c) + q * time(x, c)) / (mp.sqrt(dot(x, x)) * mp.sqrt(q * q - 1))
    return mp.acos(max(mp.mpf(-1), min(mp.mpf(1), cosine)))


def half_aperture(x: Vector, c: mp.mpf, min_radius: mp.mpf) -> mp.mpf:
    return mp.asin(min(mp.mpf(1), 2 * min_radius / mp.sqrt(c * dot(x, x))))


def exp_map0(v: Vector, c: mp.mpf) -> list[mp.mpf]:
    r = mp.sqrt(c * dot(v, v))
    return [mp.sinh(r) / r * a for a in v]


def log_map0(x: Vector, c: mp.mpf) -> list[mp.mpf]:
    r = mp.sqrt(c * dot(x, x))
    return [mp.asinh(r) / r * a for a in x]


def length(x: Vector) -> mp.mpf:
    return mp.sqrt(dot(x, x))


def relative_error(found: Tensor, wanted: Vector) -> float:
    """|found - wanted| / |wanted| of vectors."""
    difference = [a - b for a, b in zip(vector(found), wanted, strict=True)]
    return float(length(difference) / length(wanted))
