"""Draws the demo images: anti-aliased shapes on light backgrounds, and handwritten digits on paper.

Images are 64 x 64 RGB; shapes are drawn four times as large and averaged down, which smooths their edges.
Every random choice comes from the generator that is handed in, so an image is a function of its seed.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SUPERSAMPLE = 4

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (218, 36, 40),
    "orange": (248, 138, 24),
    "yellow": (246, 216, 40),
    "green": (44, 158, 68),
    "blue": (38, 92, 214),
    "purple": (136, 56, 178),
    "black": (44, 44, 50),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "heart", "ring")
TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted")
SIZES: tuple[str, ...] = ("small", "large")


@dataclass(frozen=True)
class DrawnObject:
    """One object of a scene: what it is (a name of each list above) and where, in pixels from the top left corner."""

    shape: str
    color: str
    size: str
    texture: str
    x: float  # of the centre
    y: float
    radius: float  # half the extent
    angle: float  # rotation in radians

    def outline(self) -> np.ndarray:
        """The outer border as points in pixels, (N, 2)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        rotation = np.array([[cos, -sin], [sin, cos]])
        return unit_outline(self.shape) @ rotation.T * self.radius + (self.x, self.y)

    def box(self) -> list[float]:
        """Bounding box ``[left, top, right, bottom]`` as fractions of the image, in [0, 1]."""
        points = self.outline()
        corners = np.concatenate([points.min(axis=0), points.max(axis=0)]) / SIZE
        return [round(float(v), 4) for v in np.clip(corners, 0.0, 1.0)]


def unit_outline(shape: str) -> np.ndarray:
    """Outer border of one of :data:`SHAPES` (else ValueError), radius about 1 around the origin, y down: (N, 2)."""
    turn = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
    if shape in ("circle", "ring"):
        return np.stack([np.sin(turn), -np.cos(turn)], axis=1) * 0.98
    if shape == "square":
        return np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * 0.86
    if shape == "triangle":
        corners = 2.0 * np.pi * np.arange(3) / 3.0
        return np.stack([np.sin(corners), -np.cos(corners)], axis=1) * 1.14 + (0.0, 0.2)
    if shape == "star":
        corners = np.pi * np.arange(10) / 5.0
        reach = np.where(np.arange(10) % 2 == 0, 1.12, 0.47)[:, None]
        return np.stack([np.sin(corners), -np.cos(corners)], axis=1) * reach
    if shape == "cross":
        a, b = 0.34, 1.0
        quarter = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return np.array(quarter + [(-x, -y) for x, y in quarter])
    if shape == "heart":
        x = 16.0 * np.sin(turn) ** 3
        y = 13.0 * np.cos(turn) - 5.0 * np.cos(2 * turn) - 2.0 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -(y + 2.5)], axis=1) / 15.5
    raise ValueError(f"shape is {shape!r}; expected one of {', '.join(SHAPES)}.")


def draw_scene(objects: list[DrawnObject], rng: np.random.Generator) -> Image.Image:
    """The image of some objects on a light background of a random tint."""
    canvas = _background(rng)
    for item in objects:
        _draw_object(canvas, item, rng)
    return Image.fromarray(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def draw_digit(values: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A scanned digit (8, 8), ink 0 … 16, as dark strokes on tinted paper."""
    ink = Image.fromarray((np.clip(values / 16.0, 0.0, 1.0) * 255.0).astype(np.uint8))
    ink = ink.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    amount = np.asarray(ink, dtype=np.float64)[..., None] / 255.0
    paper = rng.uniform(236.0, 255.0, size=3)
    pencil = rng.uniform(30.0, 90.0) + rng.uniform(-8.0, 8.0, size=3)
    image = paper * (1.0 - amount) + pencil * amount
    return Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))


def _draw_object(canvas: np.ndarray, item: DrawnObject, rng: np.random.Generator) -> None:
    """Paint one object on the canvas (64, 64, 3), in place: only its window, supersampled, then averaged."""
    outline = item.outline()
    left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 2, 0).tolist()
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, SIZE).tolist()
    extent = ((right - left) * SUPERSAMPLE, (bottom - top) * SUPERSAMPLE)
    corners = [tuple(point) for point in ((outline - (left, top)) * SUPERSAMPLE).tolist()]
    mask, border = Image.new("L", extent), Image.new("L", extent)
    pen, border_pen = ImageDraw.Draw(mask), ImageDraw.Draw(border)
    pen.polygon(corners, fill=1)
    width = max(3, round(0.07 * item.radius * SUPERSAMPLE))
    border_pen.line([*corners, corners[0], corners[1]], fill=1, width=width, joint="curve")
    if item.shape == "ring":
        x, y, hole = item.x - left, item.y - top, 0.5 * item.radius
        box = [float(v) * SUPERSAMPLE for v in (x - hole, y - hole, x + hole, y + hole)]
        pen.ellipse(box, fill=0)
        border_pen.ellipse(box, outline=1, width=width)
    color = np.clip(np.array(COLORS[item.color]) + rng.uniform(-10.0, 10.0, size=3), 0.0, 255.0)
    edge = np.asarray(border, dtype=bool)
    inside = np.asarray(mask, dtype=bool) & ~edge
    light = inside & _texture(item, left, top, inside.shape, rng)
    tones = ((inside & ~light, color), (light, 0.15 * color + 0.85 * 255.0), (edge, 0.72 * color))
    window = canvas[top:bottom, left:right]
    painted = sum(_share(where)[..., None] * tone for where, tone in tones)
    window *= 1.0 - _share(inside | edge)[..., None]
    window += painted


def _share(where: np.ndarray) -> np.ndarray:
    """How much of each pixel is covered, in [0, 1]: bool (h * S, w * S) -> (h, w)."""
    covered = Image.fromarray(where.astype(np.uint8) * np.uint8(255)).reduce(SUPERSAMPLE)
    return np.asarray(covered, dtype=np.float64) / 255.0


def _texture(
    item: DrawnObject, left: int, top: int, extent: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Where the lighter second tone goes in the supersampled window: bool (h * S, w * S)."""
    if item.texture == "plain":
        return np.zeros(extent, dtype=bool)
    angle = rng.uniform(0.0, np.pi)
    period = max(4.5, 0.42 * item.radius) if item.texture == "striped" else max(5.0, 0.45 * item.radius)
    dx = ((np.arange(extent[1]) + 0.5) / SUPERSAMPLE + left - item.x)[None, :] / period
    dy = ((np.arange(extent[0]) + 0.5) / SUPERSAMPLE + top - item.y)[:, None] / period
    u = dx * np.cos(angle) + dy * np.sin(angle)
    if item.texture == "striped":
        u += rng.uniform()
        return u - np.floor(u) < 0.4
    v = dy * np.cos(angle) - dx * np.sin(angle)
    u, v = u - np.rint(u), v - np.rint(v)
    return u * u + v * v < 0.26**2


def _background(rng: np.random.Generator) -> np.ndarray:
    """A soft gradient between two light tints, (64, 64, 3) float64."""
    start, end = rng.uniform(214.0, 255.0, size=(2, 3))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    grid = np.linspace(-0.5, 0.5, SIZE)
    along = np.clip(grid[None, :] * np.cos(angle) + grid[:, None] * np.sin(angle) + 0.5, 0.0, 1.0)[..., None]
    return start * (1.0 - along) + end * along
