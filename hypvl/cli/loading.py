"""What a command works with: the device, the process group under torchrun, a trained model, the store of embeddings."""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hypvl.embedding.encode import Encoding
from hypvl.embedding.identity import model_identity
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import load_without_moments, teacher_weights
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model, load_config, stored_config, usable_device
from hypvl.training.provenance import code_version

THUMBNAIL_PIXELS = 96


def pick_device(name: str | None) -> torch.device:
    """The device of that name; None = a GPU if there is one, else the CPU. Raises ConfigError for one without use."""
    return usable_device(
        "--device", ("cuda" if torch.cuda.is_available() else "cpu") if name is None else name
    )


def load_trained(
    checkpoint_path: Path, train_config: str | None, *, device: torch.device, weights: str | None = None
) -> tuple[DualEncoder, dict[str, Any]]:
    """The model in evaluation mode, and the other entries of its checkpoint (``root``, ``iteration``, ...).

    Args:
        checkpoint_path: Of hypvl, MERU, CLIP, ATMG or HyCoCLIP; nothing in it is executed.
        train_config: Config it was trained with, or a name of ``hypvl.list_models()``; None = the checkpoint's own.
        device: Where the model is put.
        weights: Name of a teacher in the checkpoint whose weights the model gets; None = its own.

    Raises:
        CheckpointError: the file is not a checkpoint, holds no such teacher, or does not fit the model.
        ConfigError: the config cannot be used, or None was given and the checkpoint has none.
    """
    config = None if train_config is None else load_config(train_config)  # the quick check first
    content = load_without_moments(checkpoint_path)
    config = config_of(content, checkpoint_path, None) if config is None else config
    try:
        if weights is not None:
            content["model"] = teacher_weights(content, weights)
        model = create_model(config, content, device=device)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint_path}: {str(error).removeprefix('checkpoint: ')}") from error
    return model, content


def load_chosen(args: argparse.Namespace, *, device: torch.device) -> tuple[DualEncoder, dict[str, Any]]:
    """The model that the flags of ``CommandParser.add_model_arguments`` name, and what is known of it.

    Returns:
        The model in evaluation mode; the other entries of its checkpoint (:func:`load_trained`), or, of a model of
        another library, ``{"foreign": ForeignModel}``.

    Raises:
        ConfigError: also for ``--train-config`` beside ``--model``.
        CheckpointError, UserError: when it cannot be loaded.
    """
    if args.model is None:
        return load_trained(args.checkpoint_path, args.train_config, device=device)
    if args.train_config is not None:
        raise ConfigError(f"--train-config: {args.model} brings its own config; leave the flag out.")
    from hypvl.models.foreign import load_foreign

    foreign = load_foreign(args.model, device=device)
    return foreign.model, {"foreign": foreign}


def model_name(args: argparse.Namespace) -> str:
    """The chosen model in messages and headings."""
    return str(args.checkpoint_path.name if args.model is None else args.model)


def results_folder(args: argparse.Namespace) -> Path:
    """Where results of the chosen model lie by default: beside its checkpoint, or ``output/<name>``."""
    if args.model is None:
        folder: Path = args.checkpoint_path.parent
        return folder
    from hypvl.models.foreign import slug

    return Path("output") / slug(args.model)


def encoding_of(args: argparse.Namespace, **settings: Any) -> Encoding:
    """How to encode, from the flags of ``CommandParser.add_encoding_arguments`` and further settings."""
    workers = {} if args.num_workers is None else {"num_workers": args.num_workers}
    try:
        return Encoding(batch_size=args.batch_size, **workers, **settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def about_model(args: argparse.Namespace, content: dict[str, Any]) -> dict[str, Any]:
    """Which model and which hypvl a result comes from, for its JSON file."""
    return {**chosen_model(args, content), "train_config": args.train_config, **code_version()}


def chosen_model(args: argparse.Namespace, content: dict[str, Any]) -> dict[str, Any]:
    """The place of a model and what is known of it: ``checkpoint`` and ``iteration``, or ``model`` and ``foreign``."""
    if args.model is None:
        return {"checkpoint": str(args.checkpoint_path), "iteration": content.get("iteration")}
    return {"model": args.model, "foreign": content["foreign"].about}


def stored_root(
    content: dict[str, Any], checkpoint_path: Path | None, *, embed_dim: int
) -> torch.Tensor | None:
    """The mean training embedding in a checkpoint, (D,); None if it stores none. Raises CheckpointError."""
    root = content.get("root")
    if root is None:
        return None
    shape = list(root.shape) if isinstance(root, torch.Tensor) else type(root).__name__
    if not isinstance(root, torch.Tensor) or root.shape != (embed_dim,) or not bool(root.isfinite().all()):
        raise CheckpointError(
            f"{checkpoint_path}: `root` is {shape}; expected a tensor of {embed_dim} finite numbers, the mean "
            "training embedding."
        )
    return root


def config_of(
    content: Mapping[str, Any],
    checkpoint_path: Path,
    train_config: str | None,
    *,
    parts: Collection[str] = ("model",),
) -> DictConfig:
    """The config of ``--train-config``; without it, of the one in the checkpoint, these parts and what they refer to.

    Raises:
        ConfigError: there is none, or one of the parts names a target that is not on the allow-list.
    """
    if train_config is not None:
        return load_config(train_config)
    source = f"{checkpoint_path} (config)"
    return stored_config(raw_config(content, checkpoint_path), source=source, parts=parts)


def raw_config(content: Mapping[str, Any], checkpoint_path: Path) -> str | dict[str, Any]:
    """The config as it stands in a checkpoint, unchecked: nothing may be built from it. Raises ConfigError."""
    config: str | dict[str, Any] | None = content.get("config")
    if config is None:
        raise ConfigError(
            f"{checkpoint_path}: holds no config; name the one it was trained with, --train-config configs/...py."
        )
    return config


def open_store(
    args: argparse.Namespace, model: nn.Module, *, roots: Mapping[str, str] | None = None
) -> EmbeddingStore | None:
    """The store of embeddings that ``--save-embeddings`` or ``--embeddings`` names; None without these flags.

    Args:
        roots: Folders by name; files in the store are known relative to them.

    Raises:
        DataError, CheckpointError: the folder holds no store, or one of another model.
    """
    if args.save_embeddings is None and args.embeddings is None:
        return None
    identity, roots = model_identity(model), {} if roots is None else roots
    if args.embeddings is not None:
        return EmbeddingStore(args.embeddings, model=identity, roots=roots)
    return EmbeddingStore(
        args.save_embeddings, model=identity, mode="write", roots=roots, thumbnails=THUMBNAIL_PIXELS
    )


def roots_of(config: DictConfig) -> dict[str, str]:
    """The folders that a config names under ``roots``; files in a store are known relative to them."""
    roots = config.get("roots")
    named = {} if roots is None else {str(name): value for name, value in roots.items()}
    return {name: value for name, value in named.items() if isinstance(value, str) and "://" not in value}
