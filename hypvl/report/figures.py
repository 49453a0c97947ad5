"""What all figures are made of: the result they are drawn from, an empty figure, its images and texts, its file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.errors import DataError
from hypvl.io.files import write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.redact import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_result(result: str | Path | Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """The content of a command's JSON file, which may be given itself.

    Raises:
        DataError: the file cannot be read, or lacks one of ``keys``.
    """
    content: Any = result
    if not isinstance(result, Mapping):
        try:
            content = parse_json(Path(result).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{result}: cannot be read ({error}); expected a JSON file of this command."
            ) from error
    missing = [key for key in keys if not isinstance(content, Mapping) or key not in content]
    if missing:
        raise DataError(f"{source_name(result)}: lacks {', '.join(missing)}; it is of another command.")
    return content


def source_name(result: str | Path | Mapping[str, Any]) -> str:
    """What messages call a result."""
    return "result" if isinstance(result, Mapping) else str(result)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", output: str | Path) -> Path:
    """Write a PNG, PDF or SVG, by the suffix. Raises DataError."""
    output = Path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, lambda file: figure.savefig(file, format=output.suffix[1:].lower() or "png"))
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}); name another folder.") from error
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
