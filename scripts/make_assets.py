"""Draw the images of assets/: python scripts/make_assets.py --output-dir assets

Everything is drawn by this script with numpy and PIL (the digit is scikit-learn's); the same script always
draws the same images.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 384
DIGIT = 1  # which three of the data set
SCALE = 3  # drawn larger, then reduced: smooth edges
CANVAS = SIDE * SCALE
Color: TypeAlias = tuple[int, int, int]
Points: TypeAlias = list[tuple[float, float]]


def gradient(stops: list[tuple[float, Color]]) -> Image.Image:
    """A vertical colour gradient; stops are (height in [0, 1] from the top, colour)."""
    rows = np.linspace(0.0, 1.0, CANVAS)
    at = [height for height, _ in stops]
    channels = [np.interp(rows, at, [color[k] for _, color in stops]) for k in range(3)]
    column = np.stack(channels, axis=-1).round().astype(np.uint8)  # (H, 3)
    return Image.fromarray(np.repeat(column[:, None], CANVAS, axis=1))


def px(value: Any) -> Any:
    """Share of the image's side -> pixels on the canvas, numbers and arrays alike."""
    return value * CANVAS


def poly(points: Points) -> Points:
    """Shares of the side -> pixels."""
    return [(px(x), px(y)) for x, y in points]


def disc(x: float, y: float, radius: float, stretch: float = 1.0) -> tuple[float, float, float, float]:
    """Bounding box of an ellipse around (x, y), ``stretch`` times as high as wide."""
    return px(x - radius), px(y - radius * stretch), px(x + radius), px(y + radius * stretch)


def glow(image: Image.Image, x: float, y: float, radius: float, color: Color, strength: float) -> Image.Image:
    """Light around a point, fading with the squared distance."""
    rows, cols = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    share = strength * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / radius**2)[..., None]
    mixed = np.asarray(image, dtype=np.float64) * (1 - share) + np.array(color) * share
    return Image.fromarray(mixed.round().astype(np.uint8))


def ridge(base: float, height: float, roughness: float, seed: int) -> Points:
    """A line of hills: random waves of falling height, closed along the bottom."""
    rng = np.random.default_rng(seed)
    xs = np.linspace(0.0, 1.0, 200)
    ys = np.full_like(xs, base)
    for octave in range(1, 7):
        ys -= height * octave**-roughness * np.sin(2 * np.pi * (octave * xs * 0.9 + rng.random()))
    return [(0.0, 1.0), *zip(xs.tolist(), ys.tolist(), strict=True), (1.0, 1.0)]


def ball(image: Image.Image, x: float, y: float, radius: float, color: Color) -> Image.Image:
    """A lit sphere: lighter to the upper left, dark at the lower right."""
    rows, cols = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    u, v = (cols - x) / radius, (rows - y) / radius
    inside = u**2 + v**2
    depth = np.sqrt(np.clip(1 - inside, 0, 1))
    light = np.clip(0.42 + 0.62 * (-0.5 * u - 0.6 * v + 0.62 * depth), 0.16, 1.0)
    shine = np.clip(-0.45 * u - 0.55 * v + 0.7 * depth, 0, 1) ** 30
    shaded = np.array(color) * light[..., None] + 190 * shine[..., None]
    edge = np.clip((1 - inside) * radius * CANVAS / 2, 0, 1)[..., None]
    mixed = np.asarray(image, dtype=np.float64) * (1 - edge) + np.clip(shaded, 0, 255) * edge
    return Image.fromarray(mixed.round().astype(np.uint8))


def shadow(image: Image.Image, x: float, y: float, radius: float, *, flat: float = 0.28) -> Image.Image:
    """A soft shadow on the ground."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse(disc(x, y, radius, flat), fill=130)
    mask = mask.filter(ImageFilter.GaussianBlur(px(0.014)))
    return Image.composite(Image.new("RGB", image.size, (40, 24, 18)), image, mask)


def landscape() -> Image.Image:
    """The sun sets behind mountains and is mirrored in a lake."""
    image = gradient(
        [(0, (52, 68, 122)), (0.3, (196, 122, 134)), (0.52, (252, 190, 122)), (1, (255, 214, 150))]
    )
    image = glow(image, 0.62, 0.46, 0.26, (255, 236, 176), 0.85)
    draw = ImageDraw.Draw(image)
    draw.ellipse(disc(0.62, 0.46, 0.062), fill=(255, 246, 214))
    layers = (
        (0.5, 0.032, 1.2, 3, (126, 98, 138)),
        (0.56, 0.03, 1.1, 8, (88, 74, 118)),
        (0.62, 0.02, 1.0, 5, (50, 50, 88)),
    )
    for base, height, roughness, seed, color in layers:
        draw.polygon(poly(ridge(base, height, roughness, seed)), fill=color)
    shore = int(px(0.66))
    mirrored = image.crop((0, 2 * shore - CANVAS, CANVAS, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    water = np.asarray(mirrored, dtype=np.float64)
    rows = np.arange(len(water))
    shift = (px(0.006) * np.sin(rows / px(0.006) / (1 + rows / len(water)))).astype(int)
    columns = (np.arange(CANVAS)[None] + shift[:, None]) % CANVAS
    water = water[rows[:, None], columns] * 0.82 + np.array((40, 56, 104)) * 0.18
    image.paste(Image.fromarray(water.round().astype(np.uint8)), (0, shore))
    draw = ImageDraw.Draw(image)
    for x, height in ((0.06, 0.3), (0.14, 0.22), (0.21, 0.26), (0.93, 0.24)):
        for k in range(5):
            width, top = 0.018 + 0.011 * k, 0.9 - height + 0.045 * k * height / 0.25
            draw.polygon(
                poly([(x, top), (x - width, top + 0.085), (x + width, top + 0.085)]), fill=(20, 26, 44)
            )
    draw.polygon(
        poly([(0, 0.86), (0.18, 0.87), (0.42, 0.93), (0.7, 0.94), (0.86, 0.89), (1, 0.87), (1, 1), (0, 1)]),
        fill=(20, 26, 44),
    )
    return image


def night_city() -> Image.Image:
    """A skyline at night with lit windows, mirrored in a river."""
    rng = np.random.default_rng(11)
    image = gradient([(0, (8, 10, 34)), (0.45, (32, 36, 84)), (0.7, (86, 62, 110)), (1, (86, 62, 110))])
    draw = ImageDraw.Draw(image)
    for x, y in rng.random((90, 2)):
        draw.ellipse(disc(x, y * 0.45, 0.0012 + 0.0016 * rng.random()), fill=(226, 230, 255))
    image = glow(image, 0.78, 0.17, 0.16, (190, 200, 255), 0.5)
    draw = ImageDraw.Draw(image)
    draw.ellipse(disc(0.78, 0.17, 0.058), fill=(248, 244, 222))
    for x, y, r in ((0.765, 0.155, 0.012), (0.795, 0.185, 0.016), (0.79, 0.148, 0.007)):
        draw.ellipse(disc(x, y, r), fill=(226, 222, 204))
    shore = 0.74
    for layer, color in enumerate(((34, 34, 72), (18, 19, 44))):
        x = -0.02
        while x < 1.0:
            width = 0.055 + 0.06 * rng.random()
            top = shore - (0.2 + 0.26 * rng.random() - 0.1 * layer)
            draw.rectangle((px(x), px(top), px(x + width), px(shore)), fill=color)
            if rng.random() < 0.3:
                draw.line(
                    (px(x + width / 2), px(top - 0.06), px(x + width / 2), px(top)), fill=color, width=6
                )
            for wx in np.arange(x + 0.009, x + width - 0.012, 0.0165):
                for wy in np.arange(top + 0.014, shore - 0.015, 0.022):
                    if rng.random() < (0.28, 0.5)[layer]:
                        lit = ((255, 214, 120), (255, 236, 178), (170, 204, 255))[
                            int(rng.choice(3, p=[0.5, 0.35, 0.15]))
                        ]
                        draw.rectangle((px(wx), px(wy), px(wx + 0.0085), px(wy + 0.012)), fill=lit)
            x += width + 0.004 * layer
    edge = int(px(shore))
    river = image.crop((0, 2 * edge - CANVAS, CANVAS, edge)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    river = river.filter(ImageFilter.BoxBlur((3, 26)))
    water = np.asarray(river, dtype=np.float64)
    rows = np.arange(len(water))
    depth = rows / len(water)
    shift = (px(0.003 + 0.009 * depth) * np.sin(rows / px(0.004 + 0.004 * depth))).astype(int)
    water = water[rows[:, None], (np.arange(CANVAS)[None] + shift[:, None]) % CANVAS]
    water = water * 0.66 + np.array((14, 18, 52)) * 0.34
    image.paste(Image.fromarray(water.round().astype(np.uint8)), (0, edge))
    return image


def still_life() -> Image.Image:
    """Two apples, an orange and a blue jug on a wooden table."""
    image = gradient(
        [(0, (206, 196, 178)), (0.6, (232, 222, 204)), (0.601, (150, 98, 60)), (1, (186, 128, 82))]
    )
    draw = ImageDraw.Draw(image)
    for k, y in enumerate((0.66, 0.745, 0.85, 0.97)):
        draw.line((0, px(y), CANVAS, px(y + 0.004 * (k % 2))), fill=(132, 84, 50), width=5)
    image = shadow(image, 0.4, 0.735, 0.17)
    draw = ImageDraw.Draw(image)
    outline = [
        (0.255, 0.2),
        (0.27, 0.27),
        (0.262, 0.34),
        (0.215, 0.44),
        (0.196, 0.54),
        (0.212, 0.64),
        (0.262, 0.725),
    ]
    mirror = [(0.66 - x, y) for x, y in reversed(outline)]
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    pen.polygon(poly(smooth([*outline, *mirror])), fill=255)
    pen.arc(disc(0.425, 0.42, 0.105, 1.3), -110, 110, fill=255, width=int(px(0.026)))
    rows, cols = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    light = np.clip(1.05 - 2.1 * np.abs(cols - 0.285), 0.35, 1)[..., None]
    glaze = np.array((62, 104, 168)) * light + np.clip(1 - np.abs(cols - 0.268) / 0.014, 0, 1)[..., None] * 60
    stripe = (((rows > 0.575) & (rows < 0.612)) | ((rows > 0.262) & (rows < 0.272))) & (cols < 0.48)
    glaze = np.where(stripe[..., None], np.array((236, 228, 208)) * light, glaze)
    image = Image.composite(Image.fromarray(glaze.clip(0, 255).astype(np.uint8)), image, mask)
    ImageDraw.Draw(image).ellipse(disc(0.33, 0.2, 0.075, 0.2), fill=(34, 58, 98))
    fruits = (
        (0.55, 0.665, 0.092, (214, 44, 40)),
        (0.79, 0.7, 0.088, (244, 140, 30)),
        (0.655, 0.765, 0.098, (146, 190, 52)),
    )
    for x, y, radius, color in fruits:
        image = shadow(image, x + 0.03, y + 0.9 * radius, radius * 1.1)
        image = ball(image, x, y, radius, color)
        draw = ImageDraw.Draw(image)
        if color != (244, 140, 30):
            top = y - radius
            draw.line(
                poly([(x, top + 0.016), (x + 0.006, top - 0.012), (x + 0.018, top - 0.03)]),
                fill=(78, 50, 28),
                width=14,
            )
            draw.polygon(
                poly(
                    smooth(
                        [
                            (x + 0.01, top - 0.008),
                            (x + 0.036, top - 0.03),
                            (x + 0.07, top - 0.024),
                            (x + 0.044, top - 0.002),
                        ]
                    )
                ),
                fill=(72, 128, 48),
            )
    return image


def smooth(points: Points, rounds: int = 4) -> Points:
    """Cut the corners of a closed polygon (Chaikin)."""
    for _ in range(rounds):
        ends = [*points[1:], points[0]]
        points = [
            ((1 - s) * ax + s * bx, (1 - s) * ay + s * by)
            for (ax, ay), (bx, by) in zip(points, ends, strict=True)
            for s in (0.25, 0.75)
        ]
    return points


def cat() -> Image.Image:
    """An orange cat sits on a windowsill in front of a starry evening."""
    image = gradient(
        [(0, (64, 92, 152)), (0.8, (244, 186, 150)), (0.801, (238, 232, 222)), (1, (214, 204, 192))]
    )
    draw = ImageDraw.Draw(image)
    for base, color, seed in ((0.68, (120, 118, 150), 4), (0.74, (86, 94, 120), 9)):
        draw.polygon(poly([(x, min(y, 0.8)) for x, y in ridge(base, 0.022, 1.0, seed)]), fill=color)
    draw.rectangle((0, px(0.8), CANVAS, CANVAS), fill=(236, 228, 216))
    draw.rectangle((0, px(0.8), CANVAS, px(0.812)), fill=(204, 192, 176))
    for x in (0.0, 0.965):
        draw.rectangle((px(x), 0, px(x + 0.035), px(0.8)), fill=(246, 240, 230))
    draw.rectangle((0, 0, CANVAS, px(0.035)), fill=(246, 240, 230))
    image = shadow(image, 0.52, 0.885, 0.24, flat=0.16)
    draw = ImageDraw.Draw(image)
    fur, dark, light, line = (232, 142, 62), (190, 100, 36), (252, 226, 190), (74, 44, 30)
    tail = [(0.66, 0.84), (0.79, 0.86), (0.85, 0.8), (0.83, 0.7), (0.78, 0.66)]
    curve = bezier(tail)
    for x, y in curve:
        draw.ellipse(disc(x, y, 0.03), fill=fur)
    for x, y in curve[-26:]:
        draw.ellipse(disc(x, y, 0.03), fill=dark)
    draw.polygon(
        poly(smooth([(0.36, 0.5), (0.64, 0.5), (0.74, 0.78), (0.7, 0.9), (0.3, 0.9), (0.28, 0.78)])), fill=fur
    )
    for y in (0.6, 0.67, 0.74):
        for side in (-1, 1):
            edge = 0.5 + side * (0.125 + 0.42 * (y - 0.55) + 0.012)
            draw.polygon(
                poly([(edge, y), (edge - side * 0.075, y + 0.014), (edge + side * 0.004, y + 0.032)]),
                fill=dark,
            )
    draw.polygon(poly(smooth([(0.43, 0.55), (0.57, 0.55), (0.58, 0.74), (0.42, 0.74)])), fill=light)
    for x in (0.425, 0.575):
        draw.rounded_rectangle(
            (px(x - 0.045), px(0.69), px(x + 0.045), px(0.895)), radius=px(0.045), fill=fur
        )
        draw.ellipse(disc(x, 0.877, 0.053, 0.6), fill=light)
        for dx in (-0.016, 0.016):
            draw.line(poly([(x + dx, 0.874), (x + dx, 0.896)]), fill=dark, width=6)
    for side in (-1, 1):
        x = 0.5 + side * 0.115
        draw.polygon(poly([(x - 0.075, 0.36), (x + 0.075, 0.36), (x + side * 0.055, 0.17)]), fill=fur)
        draw.polygon(
            poly([(x - 0.042, 0.34), (x + 0.046, 0.34), (x + side * 0.044, 0.22)]), fill=(244, 180, 160)
        )
    draw.ellipse(disc(0.5, 0.42, 0.19, 0.83), fill=fur)
    for x, height in ((0.5, 0.07), (0.455, 0.05), (0.545, 0.05)):
        draw.polygon(poly([(x - 0.014, 0.272), (x + 0.014, 0.272), (x, 0.272 + height)]), fill=dark)
    draw.ellipse(disc(0.462, 0.492, 0.052, 0.8), fill=light)
    draw.ellipse(disc(0.538, 0.492, 0.052, 0.8), fill=light)
    for x in (0.425, 0.575):
        draw.ellipse(disc(x, 0.405, 0.037, 1.1), fill=(196, 220, 96), outline=line, width=7)
        draw.ellipse(disc(x, 0.405, 0.014, 2.4), fill=(24, 22, 20))
        draw.ellipse(disc(x - 0.01, 0.388, 0.008), fill=(255, 255, 255))
    draw.polygon(poly(smooth([(0.476, 0.452), (0.524, 0.452), (0.5, 0.482)], 2)), fill=(222, 112, 110))
    for side in (-1, 1):
        draw.arc(
            (px(0.5 + min(0, side * 0.044)), px(0.468), px(0.5 + max(0, side * 0.044)), px(0.512)),
            10,
            170,
            fill=line,
            width=7,
        )
        for k in (-1, 0, 1):
            start = (0.5 + side * 0.075, 0.488 + 0.011 * k)
            draw.line(poly([start, (0.5 + side * 0.235, 0.482 + 0.034 * k)]), fill=(250, 244, 236), width=4)
    return image


def bezier(control: Points, count: int = 80) -> Points:
    """Points on the Bezier curve of any degree (de Casteljau)."""
    curve = []
    for t in np.linspace(0, 1, count):
        points = np.array(control)
        while len(points) > 1:
            points = (1 - t) * points[:-1] + t * points[1:]
        curve.append((float(points[0, 0]), float(points[0, 1])))
    return curve


def sailing_boat() -> Image.Image:
    """A sailing boat on the sea under summer clouds."""
    image = gradient(
        [(0, (70, 150, 220)), (0.62, (196, 230, 248)), (0.621, (36, 128, 170)), (1, (12, 74, 122))]
    )
    draw = ImageDraw.Draw(image)
    for x, y, size in ((0.2, 0.2, 1.0), (0.82, 0.13, 0.75), (0.68, 0.38, 0.5)):
        for dx, dy, r in (
            (-0.09, 0.01, 0.05),
            (-0.03, -0.02, 0.066),
            (0.04, -0.008, 0.055),
            (0.1, 0.014, 0.04),
        ):
            draw.ellipse(disc(x + dx * size, y + dy * size, r * size, 0.72), fill=(250, 252, 255))
        draw.rounded_rectangle(
            (px(x - 0.14 * size), px(y + 0.01 * size), px(x + 0.14 * size), px(y + 0.052 * size)),
            radius=px(0.02 * size),
            fill=(250, 252, 255),
        )
    draw.line(poly([(0.5, 0.14), (0.5, 0.68)]), fill=(94, 60, 36), width=16)
    draw.polygon(
        poly([*bezier([(0.515, 0.16), (0.66, 0.36), (0.76, 0.6)]), (0.515, 0.6)]), fill=(252, 250, 244)
    )
    draw.polygon(poly([*bezier([(0.485, 0.2), (0.42, 0.4), (0.27, 0.6)]), (0.485, 0.6)]), fill=(226, 66, 56))
    draw.polygon(poly([(0.5, 0.135), (0.57, 0.115), (0.5, 0.095)]), fill=(250, 200, 60))
    draw.line(poly([(0.5, 0.095), (0.5, 0.16)]), fill=(94, 60, 36), width=12)
    hull = [
        (0.21, 0.66),
        (0.82, 0.66),
        *bezier([(0.82, 0.66), (0.76, 0.76), (0.7, 0.765)]),
        *bezier([(0.34, 0.765), (0.27, 0.76), (0.21, 0.66)]),
    ]
    draw.polygon(poly(hull), fill=(120, 72, 42))
    draw.polygon(poly([(0.205, 0.65), (0.83, 0.65), (0.818, 0.678), (0.218, 0.678)]), fill=(246, 240, 226))
    rng = np.random.default_rng(2)
    for row, y in enumerate(np.linspace(0.745, 0.99, 9)):
        for x in np.arange(-0.1 + 0.06 * rng.random(), 1.0, 0.13 + 0.012 * row):
            shift, tone = 0.05 * rng.random(), int(36 + 60 * rng.random())
            draw.arc(
                disc(x + shift, y, 0.036 + 0.003 * row, 0.3),
                200,
                340,
                fill=(tone + 60, tone + 130, tone + 150),
                width=6 + row // 2,
            )
    draw.polygon(
        poly(
            [
                (x, y)
                for x, y in zip(
                    np.linspace(0.2, 0.84, 60), 0.762 + 0.007 * np.sin(np.linspace(0, 40, 60)), strict=True
                )
            ]
            + [(0.8, 0.785), (0.24, 0.785)]
        ),
        fill=(28, 112, 156),
    )
    return image


def shapes() -> Image.Image:
    """A large red circle left of a small blue square, as in the demo's scenes."""
    image = gradient([(0, (246, 246, 236)), (1, (228, 236, 246))])
    draw = ImageDraw.Draw(image)
    draw.ellipse(disc(0.34, 0.52, 0.24), fill=(218, 36, 40), outline=(157, 26, 29), width=int(px(0.014)))
    corners = (px(0.7), px(0.36), px(0.9), px(0.56))
    draw.rectangle(corners, fill=(38, 92, 214), outline=(27, 66, 154), width=int(px(0.01)))
    return image


def digit() -> Image.Image:
    """A handwritten three of scikit-learn's digits (8 x 8 pixels), dark on light, enlarged."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = data.images[np.flatnonzero(data.target == 3)[DIGIT]]
    ink = Image.fromarray((pixels / 16 * 255).round().astype(np.uint8))
    amount = ink.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    share = (np.clip(np.asarray(amount) / 255.0, 0, 1))[..., None]
    paper, pencil = np.array((238, 234, 224)), np.array((38, 40, 46))
    return Image.fromarray((paper * (1 - share) + pencil * share).round().astype(np.uint8))


IMAGES: dict[str, Callable[[], Image.Image]] = {
    "landscape": landscape,
    "night_city": night_city,
    "still_life": still_life,
    "cat": cat,
    "sailing_boat": sailing_boat,
    "shapes": shapes,
    "digit": digit,
}


def main() -> int:
    """Draw the images that were asked for."""
    parser = argparse.ArgumentParser(description="Draw the images of assets/.")
    parser.add_argument("--output-dir", type=Path, default=Path("assets"), help="where the PNG files go")
    parser.add_argument("--only", nargs="*", choices=sorted(IMAGES), help="draw these, not all")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.only or IMAGES:
        path = args.output_dir / f"{name}.png"
        IMAGES[name]().resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path, optimize=True)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
