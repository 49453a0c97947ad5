"""A trained model from its checkpoint and, if it is given, its training config."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from hypvl.models.dual_encoder import DualEncoder


def load_trained(
    checkpoint_path: Path, train_config: str | None, *, device: "torch.device"
) -> tuple["DualEncoder", dict[str, Any]]:
    """The model in evaluation mode, and what else the checkpoint holds (``root``, ``iteration``, ...).

    Args:
        checkpoint_path: Of hypvl, MERU, CLIP, ATMG or HyCoCLIP; nothing in it is executed.
        train_config: Path of the config it was trained with, or a name of ``hypvl.list_models()``; None = the
            config inside the checkpoint.
        device: Where the model is put.

    Raises:
        CheckpointError: the file is no checkpoint, or does not fit the model.
        ConfigError: the config cannot be used, or None was given and the checkpoint has none.
    """
    from hypvl.models.hub import create_model, load_checkpoint, load_config

    config = None if train_config is None else load_config(train_config)  # the quick check first
    content = load_checkpoint(checkpoint_path)
    config = own_config(content, checkpoint_path) if config is None else config
    try:
        model = create_model(config, content, device=device)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint_path}: {str(error).removeprefix('checkpoint: ')}") from error
    return model, content


def stored_root(content: dict[str, Any], checkpoint_path: Path, *, embed_dim: int) -> "torch.Tensor | None":
    """The mean training embedding in a checkpoint, (D,), or None where there is none.

    Raises:
        CheckpointError: when it is not ``embed_dim`` finite numbers.
    """
    import torch

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


def own_config(
    content: dict[str, Any], checkpoint_path: Path, *, parts: Collection[str] = ("model",)
) -> "DictConfig":
    """The config inside a checkpoint: the parts that are used and what they refer to; the rest is not read.

    Raises:
        ConfigError: where there is none, or one of the parts names a target that is not on the allow-list.
    """
    from hypvl.models.hub import stored_config

    return stored_config(
        raw_config(content, checkpoint_path), source=f"{checkpoint_path} (config)", parts=parts
    )


def raw_config(content: dict[str, Any], checkpoint_path: Path) -> str | dict[str, Any]:
    """The config as it stands in a checkpoint, unchecked: nothing may be built from it.

    Raises:
        ConfigError: where there is none.
    """
    config: str | dict[str, Any] | None = content.get("config")
    if config is None:
        raise ConfigError(
            f"{checkpoint_path}: holds no config; name the one it was trained with, --train-config configs/...py."
        )
    return config
