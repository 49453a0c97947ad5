"""What all figures are made of: the result they are drawn from, an empty figure, its images and texts, its file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.errors import DataError
from hypvl.io.files import write_output
from hypvl.io.json_text import read_object
from hypvl.io.redact import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@contextmanager
def result_of(file: str | Path, what: str, *, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The content of a command's JSON file, a ``what`` with these keys, in a block that takes out what is drawn.

    Raises:
        DataError: the file cannot be read, lacks a key, or holds what the block fails on.
    """
    content = read_object(Path(file), expected=f"a {what}")
    if missing := [key for key in keys if key not in content]:
        raise DataError(f"{file}: lacks {', '.join(missing)}; it is of another command.")
    try:
        yield content
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, IndexError) as error:
        raise DataError(f"{file}: no {what} ({error!r}); expected {', '.join(keys)}.") from error


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def hide_edges(axes: "Axes", *edges: str) -> None:
    """No lines at these edges: "top", "right", "bottom", "left"."""
    for edge in edges:
        axes.spines[edge].set_visible(False)


def save_figure(figure: "Figure", output: str | Path) -> Path:
    """Write a PNG, PDF or SVG, by the suffix. Raises DataError."""
    output = Path(output)
    write_output(output, lambda file: figure.savefig(file, format=output.suffix[1:].lower() or "png"))
    return output


def read_pixels(path: Path, *, longest_side: int | None = None) -> Any:
    """An image as the model sees it before the crop, uint8 (H, W, 3), shrunk to ``longest_side``. Raises DataError."""
    import numpy as np

    from hypvl.io.images import read_image_file, to_pil  # imports torch

    try:
        pixels = read_image_file(path)
        if longest_side is None:
            return pixels.movedim(0, -1).numpy()
        image = to_pil(pixels)
        image.thumbnail((longest_side, longest_side))
        return np.asarray(image)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); it belongs to the result.") from error


def shortened(text: str, width: int) -> str:
    """A text in one line of at most ``width`` characters, without what fonts have no glyphs for."""
    text = printable(" ".join(text.split()), limit=10 * len(text) + 1)
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"
