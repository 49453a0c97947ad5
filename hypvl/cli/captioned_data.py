"""Images with captions that ``--data`` names, for commands that measure or show pairs."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from hypvl.cli.common import (
    CommandParser,
    add_table_arguments,
    table_flags_given,
    table_options,
    user_path,
    user_text,
)
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from hypvl.datasets.protocol import RetrievalSet

_ROOTS = {"demo": "./datasets/demo", "coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}


def add_data_arguments(parser: CommandParser, *, default: str | None, default_is: str = "") -> None:
    """Add ``--data``, ``--images-root`` and the table flags; ``default_is`` says what None stands for."""
    parser.add_argument(
        "--data", type=user_text, default=default, metavar="WHAT",
        help="images with captions: a table (.csv, .tsv, .jsonl, .json), or one of demo, coco, flickr30k, each also as "
        "NAME:FOLDER" + (f" (default: {default_is})" if default_is else ""),
    )  # fmt: skip
    parser.add_argument(
        "--images-root", type=user_path, metavar="DIR",
        help="folder that a table names its images from, and may not leave",
    )  # fmt: skip
    add_table_arguments(parser)


def captioned_set(args: argparse.Namespace) -> "RetrievalSet":
    """The images and captions that ``--data`` names. Raises ConfigError, DataError."""
    from hypvl.datasets.demo import demo_retrieval_set
    from hypvl.datasets.retrieval.coco import coco, flickr30k
    from hypvl.datasets.retrieval.table import table
    from hypvl.io.table_text import JSON_SUFFIXES, TABLE_SUFFIXES

    readers: dict[str, Callable[..., RetrievalSet]] = {
        "demo": demo_retrieval_set,
        "coco": coco,
        "flickr30k": flickr30k,
    }
    what = args.data
    name, _, folder = what.partition(":")
    if what.lower().endswith((*TABLE_SUFFIXES, *JSON_SUFFIXES)):
        return table(what, images_root=args.images_root, **table_options(args))
    if name not in readers:
        raise ConfigError(
            f"--data: got {what!r}; expected a table (.csv, .tsv, .jsonl, .json), or one of {', '.join(readers)} (NAME "
            "or NAME:FOLDER)."
        )
    flags = [*(["--images-root"] if args.images_root is not None else []), *table_flags_given(args)]
    if flags:
        raise ConfigError(f"{flags[0]}: goes with a table; got --data {what}.")
    return readers[name](root=folder or _ROOTS[name])
