"""Images of rankings by the root, of radius histograms, and of what lies between two images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypvl.report.figures import hide_edges, new_figure, read_pixels, result_of, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_IMAGES, _COLUMNS, _MOST_TEXTS = 40, 10, 40
_COLORS = ("#1f4e79", "#d1731f", "#3d8a5a", "#8a3d6b", "#777777", "#b59b00")
_SHORT = 80
_THUMBNAIL = 256  # pixels


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` positions of ``count``, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    if most < 2:
        return [0][:most]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def draw_ranking(result: str | Path, output: str | Path) -> Path:
    """Draw a ranking: images as a sheet from the root outwards, texts as a list beside their radii.

    Of long rankings an even choice is shown.

    Args:
        result: The file of ``rank_by_root``.
        output: PNG, PDF or SVG to write; it is returned.

    Raises:
        DataError: the result is not a ranking, or an image cannot be read.
    """
    with result_of(result, "ranking", keys=("order", "items", "modality")) as content:
        order, items = str(content["order"]), list(content["items"])
        places = [float(item[order]) for item in items]
        names = [str(item["name"]) for item in items]
    axis = "distance to the root" if order == "radius" else f"along the ray through {content.get('through')}"
    if content["modality"] == "image":
        shown = evenly_spaced(len(items), _MOST_IMAGES)
        rows_of_items = [shown[at : at + _COLUMNS] for at in range(0, len(shown), _COLUMNS)]
        sheet = [[Path(items[i]["path"]) for i in row] for row in rows_of_items]
        labels = [[f"{i + 1}.  {places[i]:.3f}" for i in row] for row in rows_of_items]
        title = f"{len(shown)} of {len(items)}, by {shortened(axis, 60)}: rank and value"
        return save_figure(_sheet(sheet, labels, title=title), output)
    shown = evenly_spaced(len(items), _MOST_TEXTS)
    figure = new_figure(9.0, 1.2 + 0.26 * max(4, len(shown)))
    axes = figure.add_axes((0.07, 0.7 / figure.get_figheight(), 0.2, 1 - 1.1 / figure.get_figheight()))
    rows = list(range(len(shown)))
    axes.barh(rows, [places[i] for i in shown], color=_COLORS[0], height=0.6)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(rows, [str(i + 1) for i in shown], fontsize=7)
    axes.set_xlabel(shortened(axis, 40), fontsize=8, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    hide_edges(axes, "top", "right")
    for row, i in zip(rows, shown, strict=True):
        axes.text(
            1.05, row, shortened(names[i], _SHORT), transform=axes.get_yaxis_transform(), va="center", fontsize=8,
            parse_math=False, clip_on=False,
        )  # fmt: skip
    return save_figure(figure, output)


def draw_histograms(result: str | Path, output: str | Path) -> Path:
    """Draw radius histograms over each other, as shares of each group, with their medians.

    Arguments and errors are those of :func:`draw_ranking`, for the file of ``radius_histograms``.
    """
    figure = new_figure(8.0, 4.5)
    axes = figure.add_axes((0.09, 0.13, 0.88, 0.8))
    with result_of(result, "histograms", keys=("edges", "groups")) as content:
        edges = [float(edge) for edge in content["edges"]]
        for number, (name, group) in enumerate(content["groups"].items()):
            color = _COLORS[number % len(_COLORS)]
            shares = [100.0 * count / group["count"] for count in group["counts"]]
            label = f"{shortened(str(name), 40)} ({group['count']}, mean {group['mean']:.3f})"
            axes.stairs(shares, edges, fill=True, color=color, alpha=0.35)
            axes.stairs(shares, edges, color=color, linewidth=1.2, label=label.replace("$", r"\$"))
            axes.axvline(group["quantiles"][2], color=color, linewidth=1.0, linestyle="--")
    axes.set_xlabel("distance to the root (dashed: medians)", fontsize=9)
    axes.set_ylabel("% of the group", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    hide_edges(axes, "top", "right")
    return save_figure(figure, output)


def draw_interpolation(result: str | Path, output: str | Path) -> Path:
    """Draw the way between two images: the closest images of the pool at each point, or the closest texts.

    Arguments and errors are those of :func:`draw_ranking`, for the file of ``image_interpolations``.
    """
    with result_of(result, "interpolation", keys=("image", "target", "steps")) as content:
        ends = [Path(content["image"]), Path(content["target"])]
        steps = list(content["steps"])
        weights = [float(step["weight"]) for step in steps]
        names = [[str(name) for name in step["names"]] for step in steps]
        paths = [[Path(path) for path in step["paths"]] for step in steps] if "paths" in steps[0] else None
    shown = evenly_spaced(len(steps), _COLUMNS)
    title = f"from {ends[0].name} (left) to {ends[1].name} (right)"
    if paths is not None:
        depth = min(3, len(paths[0]))
        sheet = [[ends[0], *(paths[i][row] for i in shown), ends[1]] for row in range(depth)]
        labels = [
            ["start", *(f"{weights[i]:.2f}" for i in shown), "end"],
            *([""] * (len(shown) + 2) for _ in sheet[1:]),
        ]
        return save_figure(_sheet(sheet, labels, title=title), output)
    figure = _sheet(
        [[ends[0], ends[1]]], [["start", "end"]], title=title, width=7.0, below=0.3 + 0.28 * len(shown)
    )
    for row, i in enumerate(shown):
        text = f"{weights[i]:.2f}   {shortened(names[i][0], 100)}"
        height = 0.28 * (len(shown) - row) / figure.get_figheight()
        figure.text(0.06, height, text, fontsize=9, va="center", parse_math=False)
    return save_figure(figure, output)


def _sheet(
    rows: Sequence[Sequence[Path]],
    labels: Sequence[Sequence[str]],
    *,
    title: str,
    width: float = 12.0,
    below: float = 0.1,
) -> "Figure":
    """Images in a grid with a line of text under each; ``below`` inches are left free at the bottom."""
    columns = max(map(len, rows))
    side = min(width / columns, 2.2)
    height = 0.45 + (side + 0.2) * len(rows) + below
    figure = new_figure(width, height)
    figure.text(0.02, 1 - 0.22 / height, title, fontsize=9, va="center", color="#333333", parse_math=False)
    for row, (pil_images, texts) in enumerate(zip(rows, labels, strict=True)):
        top = height - 0.45 - (side + 0.2) * row
        for column, (path, text) in enumerate(zip(pil_images, texts, strict=True)):
            axes = figure.add_axes((
                (column + 0.04) * side / width, (top - side) / height, 0.92 * side / width, 0.92 * side / height,
            ))  # fmt: skip
            axes.imshow(read_pixels(path, longest_side=_THUMBNAIL))
            axes.set_anchor("S")
            axes.set_axis_off()
            centre, under = (column + 0.5) * side / width, (top - side - 0.09) / height
            figure.text(
                centre, under, text, fontsize=7, ha="center", va="center", color="#333333", parse_math=False
            )
    return figure
