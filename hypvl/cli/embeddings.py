"""`--save-embeddings` and `--embeddings` of `scripts/evaluate.py`: embeddings that outlive a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import user_path
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from hypvl.embedding.store import EmbeddingStore

THUMBNAIL_PIXELS = 96


def add_embeddings_arguments(parser: argparse.ArgumentParser) -> None:
    """The two flags; give the parsed ones to :func:`with_store`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--save-embeddings",
        type=user_path,
        metavar="DIR",
        help="keep embeddings, ids and thumbnails in this folder, and take from it what is there",
    )
    group.add_argument(
        "--embeddings",
        type=user_path,
        metavar="DIR",
        help="take from this folder what is there (of --save-embeddings or scripts/extract_embeddings.py)",
    )


def with_store(config: "DictConfig", args: argparse.Namespace, model: "nn.Module") -> "DictConfig":
    """The config whose evaluators encode with the folder that the flags name; the same without these flags.

    Args:
        config: Of ``scripts/evaluate.py``; stays as it is.
        args: With ``save_embeddings``, ``embeddings``, ``standardize`` and ``shift``.
        model: What is evaluated.

    Raises:
        ConfigError: the evaluators have no common ``encoding``, or their embeddings would be those of each data set.
        DataError, CheckpointError: the folder holds no store, or one of another model.
    """
    folder: Path | None = args.save_embeddings if args.embeddings is None else args.embeddings
    if folder is None:
        return config
    flag = "--embeddings" if args.embeddings is not None else "--save-embeddings"
    if args.standardize is not None or args.shift is not None:
        raise ConfigError(
            f"{flag}: embeddings are kept as the model gives them; leave out --standardize and --shift."
        )
    if "encoding" not in config:
        raise ConfigError(
            f"{flag}: the config has no top-level `encoding` that its evaluators share; add one and refer to it by "
            "encoding=${encoding}."
        )
    from omegaconf import OmegaConf

    from hypvl.config import LazyCall
    from hypvl.embedding.store import EmbeddingStore

    settings = store_settings(args, model, roots=roots_of(config))
    EmbeddingStore(**settings)  # refuses another model before anything is evaluated
    changed = config.copy()
    OmegaConf.update(changed, "encoding.store", LazyCall(EmbeddingStore)(**settings), force_add=True)
    return changed


def open_store(args: argparse.Namespace, model: "nn.Module") -> "EmbeddingStore | None":
    """The folder that the flags name, for commands without a config; None without these flags.

    Raises:
        DataError, CheckpointError: it holds no store, or one of another model.
    """
    from hypvl.embedding.store import EmbeddingStore

    if args.save_embeddings is None and args.embeddings is None:
        return None
    return EmbeddingStore(**store_settings(args, model, roots={}))


def store_settings(args: argparse.Namespace, model: "nn.Module", *, roots: dict[str, str]) -> dict[str, Any]:
    """Arguments of :class:`~hypvl.embedding.store.EmbeddingStore` for one of the two flags."""
    from hypvl.embedding.identity import model_identity

    reads = args.embeddings is not None
    return {
        "folder": str(args.embeddings if reads else args.save_embeddings),
        "model": model_identity(model),
        "mode": "read" if reads else "write",
        "roots": roots,
        "thumbnails": 0 if reads else THUMBNAIL_PIXELS,
    }


def roots_of(config: "DictConfig") -> dict[str, str]:
    """The folders that a config names, by which files in a store are known."""
    roots = config.get("roots")
    found = {} if roots is None else {str(name): value for name, value in roots.items()}
    return {name: value for name, value in found.items() if isinstance(value, str) and "://" not in value}
