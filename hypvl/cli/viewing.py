"""What ``hypvl export`` shows in viewers: images and captions of a table, or of a folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hypvl.cli.captioned_data import captioned_set
from hypvl.cli.common import show, table_options
from hypvl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hypvl.export.view import View
    from hypvl.models.dual_encoder import DualEncoder


def write_view(args: argparse.Namespace) -> int:
    """Encode what ``--data`` or ``--image-dir`` names, and write the files of the viewer ``--to`` names."""
    if (args.data is None) == (args.image_dir is None):
        raise ConfigError(f"--to {args.to}: expected one of --data and --image-dir, what to look at.")
    if args.label_column is not None and args.data is None:
        raise ConfigError(
            "--label-column: goes with --data and a table; labels of --image-dir are its folders."
        )

    from hypvl.cli.loading import load_chosen, pick_device
    from hypvl.embedding.extract import require_pyarrow
    from hypvl.export.folder import new_folder
    from hypvl.export.viewers import write_viewer

    if args.to == "atlas":
        require_pyarrow()
    model, _ = load_chosen(args, device=pick_device(args.device))
    view = _view(args, model)
    with new_folder(args.output) as folder:
        written = write_viewer(view, folder, viewer=args.to)
    for path in written:
        show(args.output / path.name)
    about = view.about
    show(f"{len(view.rows)} rows, {about['x, y']}, which keeps {about['variance_kept']:.1%} of the variance")
    show(f"next: {next_command(args.to, args.output)}")
    return 0


def next_command(viewer: str, folder: Path) -> str:
    """The line for the shell that opens the files of a viewer."""
    if viewer == "atlas":
        columns = "--x x --y y --neighbors neighbors --text caption"
        return f"embedding-atlas {quote(str(folder / 'atlas.parquet'))} {columns}"
    return f"python {quote(str(folder / 'show.py'))}"


def _view(args: argparse.Namespace, model: "DualEncoder") -> "View":
    from hypvl.cli.encode_inputs import show_unreadable
    from hypvl.cli.loading import encoding_of
    from hypvl.data.transforms import ResizeCenterCrop, Squeeze
    from hypvl.datasets.images import Images
    from hypvl.datasets.user_inputs import image_paths
    from hypvl.embedding.encode import CachedEncoder
    from hypvl.embedding.pairs import evenly, first_captions
    from hypvl.export.view import build_view

    encoder = CachedEncoder(model, encoding=encoding_of(args))
    sizes: dict[str, Any] = {"neighbours": args.neighbours or 10, "pixels": args.image_pixels or 256}
    limit = args.limit or 5000
    if args.image_dir is not None:
        paths = image_paths(args.image_dir)
        paths = [paths[i] for i in evenly(range(len(paths)), limit)]
        folders = [path.parent.relative_to(args.image_dir).as_posix() for path in paths]
        view = build_view(
            encoder, Images.from_files(paths), names=[str(path) for path in paths],
            transform=ResizeCenterCrop.of(model), labels=["" if name == "." else name for name in folders], **sizes,
        )  # fmt: skip
        show_unreadable(encoder)
        return view
    dataset = captioned_set(args)
    first = first_captions(dataset)
    chosen = evenly(list(first), limit)
    names = [dataset.keys[i] for i in chosen]
    view = build_view(
        encoder, Images(dataset.images, chosen), names=names, transform=Squeeze.of(model),
        captions=[first[i] for i in chosen], labels=_labels(args, names), **sizes,
    )  # fmt: skip
    show_unreadable(encoder)
    return view


def _labels(args: argparse.Namespace, names: Sequence[str]) -> list[str] | None:
    """The labels of images in a column of the table, the first row of each; None without ``--label-column``."""
    if args.label_column is None:
        return None
    from hypvl.datasets.files import open_table
    from hypvl.io.table_text import IMAGE_COLUMNS, JSON_IMAGE_COLUMNS, JSON_SUFFIXES, TABLE_SUFFIXES

    path = Path(args.data)
    if path.suffix.lower() not in (*TABLE_SUFFIXES, *JSON_SUFFIXES):
        raise ConfigError(f"--label-column: goes with a table; got --data {args.data}.")
    options = table_options(args)
    table = open_table(path, separator=options["separator"], quoting=options["quoting"])
    usual = JSON_IMAGE_COLUMNS if table.is_json else IMAGE_COLUMNS
    image = table.column(args.image_column, usual, option="image_column")
    labels: dict[str, str] = {}
    for place, row in table.usable_rows():
        if args.label_column not in row:
            raise DataError(
                f"{path}, {place}: has no {args.label_column!r}; expected one of its columns, {', '.join(row)}."
            )
        labels.setdefault(str(row[image]), str(row[args.label_column]))
    return [labels.get(name, "") for name in names]
