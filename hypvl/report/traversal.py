"""The image of an image traversal: the image, and beside it the texts over the distance to the root."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.report.figures import hide_edges, new_figure, read_pixels, result_of, save_figure, shortened

_MOST_LABELS = 40
_WIDEST_LABEL = 68  # characters
_LABEL_GAP = 0.42  # inches between two labels
_ACCENT = "#1f4e79"


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps with the same text."""

    text: str
    near: float  # radius of the step next to the root
    far: float  # radius of the step next to the image
    first: bool  # whether the text has not been there before


def stretches(steps: Sequence[Mapping[str, Any]]) -> list[Stretch]:
    """Steps of a traversal's JSON, joined where the text stays the same; from the image to the root."""
    joined: list[Stretch] = []
    for text, group in groupby(steps, key=lambda step: step["text"]):
        radii = [float(step["radius"]) for step in group]
        known = any(text == other.text for other in joined)
        joined.append(Stretch(text, near=radii[-1], far=radii[0], first=not known))
    return joined


def spread(wanted: Sequence[float], *, gap: float, high: float) -> list[float]:
    """Positions near the wanted ones, from high to low, ``gap`` apart, in [0, high]; below it if they do not fit."""
    placed: list[float] = []
    for value in wanted:
        placed.append(min(value, placed[-1] - gap if placed else high))
    floor = 0.0
    for i in range(len(placed) - 1, -1, -1):  # whoever was pushed out below moves up again
        placed[i] = max(placed[i], floor)
        floor = placed[i] + gap
    over = max(0.0, placed[0] - high) if placed else 0.0
    return [value - over for value in placed]


def draw_traversal(result: str | Path, output: str | Path) -> Path:
    """Draw a traversal from its JSON.

    Args:
        result: The file that ``image_traversals`` writes.
        output: PNG, PDF or SVG to write; it is returned.

    Raises:
        DataError: when the result is not a traversal, or its image cannot be read.
    """
    with result_of(result, "traversal", keys=("image", "root", "steps")) as content:
        image = Path(content["image"])
        parts = stretches(content["steps"])
        root = str(content["root"])
    if not parts:
        raise DataError(f"{result}: a traversal without steps; expected at least one.")
    pixels = read_pixels(image)

    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    shown = [part for part in parts if part.first][-_MOST_LABELS:]
    height = max(4.2, 1.2 + _LABEL_GAP * len(shown))
    figure = new_figure(10.5, height)
    side = min(3.5, height - 1.0)
    image_axes = figure.add_axes((0.03, 0.5 - side / height / 2, side / 10.5, side / height))
    image_axes.imshow(pixels)
    image_axes.set_xticks([])
    image_axes.set_yticks([])
    image_axes.set_title(shortened(image.name, _WIDEST_LABEL), fontsize=10, color="#333333", parse_math=False)

    bottom, top = 0.55 / height, 1 - 0.45 / height
    axes = figure.add_axes((0.44, bottom, 0.54, top - bottom))
    largest = max(part.far for part in parts)
    extent = largest if largest > 0 else 1.0
    axes.set_ylim(-0.04 * extent, 1.04 * extent)
    axes.set_xlim(0, 1)
    hide_edges(axes, "top", "right", "bottom")
    axes.spines["left"].set_color("#888888")
    axes.set_xticks([])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="y", colors="#555555", labelsize=8)
    axes.set_ylabel("distance to the root", fontsize=9, color="#333333")

    names = list(dict.fromkeys(part.text for part in parts))
    shade = LinearSegmentedColormap.from_list(
        "", ((0.12, 0.31, 0.47), (0.80, 0.87, 0.93))
    )  # pale at the root
    shades = {name: shade(i / max(1, len(names) - 1)) for i, name in enumerate(names)}
    # A stretch reaches half way to its neighbours, so that the bar has no gaps.
    for i, part in enumerate(parts):
        high = part.far if i == 0 else (part.far + parts[i - 1].near) / 2
        low = part.near if i == len(parts) - 1 else (part.near + parts[i + 1].far) / 2
        axes.fill_between((0.03, 0.055), low, high, color=shades[part.text], linewidth=0)
    axes.plot((0.0425,), (parts[0].far,), marker="o", markersize=6, color=_ACCENT, clip_on=False)
    axes.plot((0.0425,), (parts[-1].near,), marker="o", markersize=6, color="#333333", clip_on=False)

    gap = _LABEL_GAP * 0.9 * 1.08 * extent / (height * (top - bottom))
    centres = [(part.near + part.far) / 2 for part in shown]
    places = spread(centres, gap=gap, high=extent)
    for part, centre, place in zip(shown, centres, places, strict=True):
        line, label = (centre, place, place), shortened(part.text, _WIDEST_LABEL)
        axes.plot((0.06, 0.1, 0.135), line, color="#aaaaaa", linewidth=0.8, solid_joinstyle="round")
        axes.text(0.15, place, label, va="center", fontsize=9, color="#111111", parse_math=False)
    note = {
        "geometry": "",
        "checkpoint": "[ROOT] = mean training embedding (checkpoint)",
        "text pool": "[ROOT] = mean embedding of the text pool",
    }.get(root, "")
    if note:
        figure.text(0.03, 0.12 / height, note, fontsize=7.5, color="#666666")
    return save_figure(figure, output)
