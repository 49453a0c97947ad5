"""Flags that say how a table of images and captions is read: the same for every command, named as in a config."""

import argparse
from typing import Any

from hypvl.errors import ConfigError


def add_table_arguments(parser: Any, *, images: bool = True) -> None:
    """Add ``--caption-column``, ``--separator``, ``--quoting`` and, for tables with images, ``--image-column``.

    Args:
        parser: A parser, or a group of one.
        images: Whether images are read, too.
    """
    if images:
        parser.add_argument(
            "--image-column",
            metavar="NAME",
            help="column or key of the image (default: image, filepath, ...)",
        )
    parser.add_argument(
        "--caption-column", metavar="NAME", help="column or key of the caption (default: caption, title, ...)"
    )
    parser.add_argument(
        "--separator",
        metavar="SIGN",
        help="between columns (default: TAB if the header line has one, else comma, else semicolon)",
    )
    parser.add_argument(
        "--quoting",
        choices=("minimal", "none"),
        default="minimal",
        help="none: quotation marks are plain signs",
    )


def table_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said, by the names that readers have for it.

    Raises:
        ConfigError: for a separator that cannot be one.
    """
    from hypvl.io.table_text import checked_separator

    names = ("image_column", "caption_column", "separator", "quoting")
    options = {name: getattr(args, name) for name in names if hasattr(args, name)}
    try:
        options["separator"] = checked_separator(options["separator"])
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    return options


def table_flags_given(args: argparse.Namespace) -> list[str]:
    """The flags of a table that were given, for commands that may read something else."""
    return [
        f"--{name.replace('_', '-')}"
        for name, value in table_options(args).items()
        if value not in (None, "minimal")
    ]
