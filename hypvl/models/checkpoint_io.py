"""Checkpoint files: reading them without ever running code in them, and finding the last one of a run's folder."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.io.json_text import parse_json
from hypvl.models.convert import listed
from hypvl.models.safe_pickle import read_torch

# Written into our checkpoints as `format_version`; files of a later version are refused.
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Beside the weights in a .safetensors file; `root` of a .pth file.
ROOT_TENSOR = "root"
# 0-dim parameters that some trainers save as plain numbers.
_SCALARS = frozenset({"logit_scale", "logit_bias", "curv", "visual_alpha", "textual_alpha"})
FINAL_NAME = "checkpoint_final.pth"
LAST_NAME = "last_checkpoint.txt"
_PERIODIC = re.compile(r"checkpoint_(\d+)\.pth")
_UNREADABLE = (
    1 << 62
)  # a final checkpoint that cannot be read counts as the newest, so that it is not skipped silently


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file on the CPU; nothing in it is executed.

    Args:
        path: A ``.pth`` / ``.pt`` file of a published system, of open_clip (``state_dict`` instead of ``model``) or
            of hypvl, a bare state_dict, or a ``.safetensors`` file (the ``config.json`` beside it is read too), or
            the folder of a hypvl run: its final or last checkpoint.

    Returns:
        The dict in the file; ``model`` is its state_dict, with the names the file has. Published files also
        have ``optimizer``, ``scheduler``, ``scaler``, ``iteration`` and sometimes ``root``; ours are
        described in docs/design.md. From ``.safetensors``: ``model`` and, if there are, ``config``, ``root``.

    Raises:
        CheckpointError: No such file, no checkpoint, truncated, a pickle with code in it, or a later version.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pth or .safetensors).")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; expected a dict with the key `model`."
        )
    weights = weights_in(content.get("model"))
    if "model" not in content:  # a bare state_dict, or a training run of open_clip
        weights = weights_in(content)
        content = content if weights is None else {}
        weights = weights or weights_in(content.get("state_dict"))
    if weights is None:
        raise CheckpointError(
            f"{path}: no checkpoint, its keys are {listed(map(str, content))}; "
            "expected the key `model` with a state_dict (names and tensors)."
        )
    content = {**content, "model": weights}
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version {version!r}; expected at most {FORMAT_VERSION}, install a later hypvl."
        )
    return content


def weights_in(value: Any) -> dict[str, Tensor] | None:
    """The tensors of a state_dict; None for anything else.

    Plain values among them (an epoch, a version) are left out, except numbers under the name of a weight
    (``logit_scale``). NumPy arrays of numbers become tensors.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    plain = (Tensor, np.ndarray, np.generic, int, float, complex, str, type(None))
    if not any(isinstance(item, Tensor) for item in value.values()) or not all(
        isinstance(item, plain) for item in value.values()
    ):
        return None
    weights: dict[str, Tensor] = {}
    for key, item in value.items():
        if isinstance(item, Tensor):
            weights[key] = item
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            weights[key] = torch.from_numpy(item.astype(item.dtype.newbyteorder("=")))
        elif isinstance(item, int | float | np.number) and key.rpartition("module.")[2] in _SCALARS:
            weights[key] = torch.tensor(float(item))
    return weights


def periodic_iteration(path: Path) -> int | None:
    """The iteration in the name of a periodic checkpoint; None for another file."""
    match = _PERIODIC.fullmatch(path.name)
    return None if match is None else int(match.group(1))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, newest first: by iteration, the final one before a periodic one."""
    if not folder.is_dir():
        return []
    dated = []
    for path in folder.iterdir():
        iteration = _final_iteration(path) if path.name == FINAL_NAME else periodic_iteration(path)
        if iteration is not None and path.is_file():
            dated.append((iteration, path.name == FINAL_NAME, path))
    return [path for *_, path in sorted(dated, reverse=True)]


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint.txt`` names, else the newest one that is there; None without any.

    Raises:
        CheckpointError: when the file it names does not exist and there is no other.
    """
    pointer = folder / LAST_NAME
    named = folder / Path(pointer.read_text(errors="replace").strip()).name if pointer.is_file() else None
    if named is not None and named.is_file():
        return named
    newest = next(iter(checkpoints(folder)), None)
    if named is not None:
        if newest is None:
            raise CheckpointError(
                f"{pointer}: names {named.name}, which is not in {folder}; "
                "put it back, or write the name of a checkpoint that is there."
            )
        logger.warning("{}: names {}, which is not there; taking {}", pointer, named.name, newest.name)
    return newest


def checkpoint_file(path: str | Path) -> Path:
    """The path itself, or the last checkpoint of a run's folder.

    That is the one named in ``last_checkpoint.txt``: after the run was extended, ``checkpoint_final.pth`` is older.

    Raises:
        CheckpointError: for a folder that is not a run, or whose last checkpoint does not exist.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    last = last_checkpoint(path)
    if last is None:
        raise CheckpointError(
            f"{path}: a folder with neither {FINAL_NAME} nor {LAST_NAME}; expected a checkpoint file (.pth or "
            ".safetensors) or the folder of a training run."
        )
    return last


def _final_iteration(path: Path) -> int:
    """The iteration in a checkpoint, without reading its tensors."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError):
        return _UNREADABLE  # the error is raised when it is loaded


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = {"model": load_file(path)}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: truncated or no safetensors file ({error}); copy or download it again."
        ) from error
    if ROOT_TENSOR in content["model"]:
        content["root"] = content["model"].pop(ROOT_TENSOR)
    beside = path.with_name(CONFIG_FILE)
    if beside.is_file():
        try:
            content["config"] = parse_json(beside.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{beside}: not JSON ({error}); expected the config of {path.name}."
            ) from error
    return content
