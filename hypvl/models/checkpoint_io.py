"""Checkpoint files: reading them without ever running code in them, and finding the last one of a run's folder."""

import copy
import os
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.io.archives import zip_checksum, zip_damage
from hypvl.io.files import file_digest, read_regular
from hypvl.io.json_text import parse_json
from hypvl.io.redact import printable
from hypvl.io.sharded import (
    REST_NAME,
    is_sharded_checkpoint,
    read_stored,
    read_table,
    sharded_checksum,
    sharded_damage,
    with_stored,
)
from hypvl.models.convert import listed
from hypvl.models.plain_types import PLAIN, SAFE, plain

# Written into our checkpoints as `format_version`; files of a later version are refused.
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Beside the weights in a .safetensors file; `root` of a .pth file.
ROOT_TENSOR = "root"
# 0-dim parameters that some trainers save as plain numbers.
_SCALARS = frozenset({"logit_scale", "logit_bias", "curv", "visual_alpha", "textual_alpha"})
FINAL_NAME = "checkpoint_final.pth"
BEST_NAME = "checkpoint_best.pth"  # that of train.keep_best; never the last one
LAST_NAME = "last_checkpoint.txt"
_PERIODIC = re.compile(r"checkpoint_(\d+)(\.pth)?")  # a file, or the folder of a sharded one
# A final checkpoint that cannot be read counts as the newest, so that it is not skipped silently.
_UNREADABLE = 1 << 62
_LONGEST_POINTER = 4096  # bytes
_TRIES = 10  # of reading a folder while a run writes into it
_LONGEST_NAME = (
    1000  # characters of a weight's name, which the patterns of published names go over again and again
)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file on the CPU; nothing in it is executed.

    Args:
        path: A ``.pth`` / ``.pt`` file of a published system, of open_clip (``state_dict`` instead of ``model``) or
            of hypvl, a bare state_dict, or a ``.safetensors`` file (the ``config.json`` beside it is read too), or
            the folder of a hypvl run: its final or last checkpoint. One that was written in shards is a folder, too.

    Returns:
        The dict in the file; ``model`` is its state_dict, with the names the file has. Published files also
        have ``optimizer``, ``scheduler``, ``scaler``, ``iteration`` and sometimes ``root``; ours are
        described in docs/design.md. From ``.safetensors``: ``model`` and, if there are, ``config``, ``root``.

    Raises:
        CheckpointError: No such file, no checkpoint, truncated, a pickle with code in it, or a later version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model": {"a": torch.ones(2)}}, f"{folder}/weights.pth")
        ...     load_checkpoint(f"{folder}/weights.pth")["model"]["a"]
        tensor([1., 1.])
    """
    return _while_there(path, lambda file: cast(dict[str, Any], read_stored(_opened(file))))


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """As :func:`load_checkpoint`; of a sharded one the weights of the model are read, and nothing else that is sharded.

    A :class:`~hypvl.io.sharded.Stored` stands where such a tensor belongs, in teachers and the optimizer.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    return _while_there(path, _opened)


def _opened(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _open_sharded(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pth or .safetensors).")
    return _checked(path, _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path))


def load_without_moments(path: str | Path) -> dict[str, Any]:
    """As :func:`load_checkpoint` without ``optimizer``, whose moments (two thirds of a run's checkpoint) are not read.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    return _while_there(path, _opened_without_moments)


def _opened_without_moments(path: Path) -> dict[str, Any]:
    if path.is_dir() or not path.is_file() or path.suffix == ".safetensors":
        content = _opened(path)
    else:  # copied out of the mapped file, which somebody may write over
        content = {**_checked(path, _read_torch(path, mapped=True)), "optimizer": None}
        content = copy.deepcopy(content)
    return {key: read_stored(item) for key, item in content.items() if key != "optimizer"}


def _while_there(path: str | Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Read a checkpoint that a run which goes on may remove meanwhile: of its folder the next one is read then."""
    for _ in range(_TRIES):
        file = checkpoint_file(path)
        there = os.path.lexists(file)
        try:
            return read(file)
        except (CheckpointError, OSError) as error:
            if not there or os.path.lexists(file):
                raise
            if file == Path(path):
                raise CheckpointError(
                    f"{file}: was removed while it was read, as its run keeps only the last of them "
                    "(train.keep_checkpoints); name the folder of the run, or a copy."
                ) from error
    raise CheckpointError(
        f"{path}: its checkpoints are removed faster than they can be read; raise train.keep_checkpoints."
    )


def _open_sharded(folder: Path) -> dict[str, Any]:
    try:
        damage = sharded_damage(folder)
    except OSError as error:
        damage = f"cannot be read: {error.strerror or error}"
    if damage is not None:
        raise CheckpointError(f"{folder}: damaged ({damage}); take another checkpoint, or copy it again.")
    content = with_stored(_read_torch(folder / REST_NAME), folder, read_table(folder))
    if isinstance(content, dict):
        content["model"] = read_stored(content.get("model"))
    return _checked(folder, content)


def _checked(path: Path, content: Any) -> dict[str, Any]:
    """The content of a checkpoint with its weights under \"model\"; CheckpointError where it has none."""
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

    Raises:
        CheckpointError: for a name that is none of a weight: longer than 1,000 characters.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    plain = (Tensor, np.ndarray, np.generic, int, float, complex, str, type(None))
    if not any(isinstance(item, Tensor) for item in value.values()) or not all(
        isinstance(item, plain) for item in value.values()
    ):
        return None
    longest = max(value, key=len)
    if len(longest) > _LONGEST_NAME:
        raise CheckpointError(
            f"the weight {longest[:40]}... has a name of {len(longest)} characters; expected at most {_LONGEST_NAME}."
        )
    weights: dict[str, Tensor] = {}
    for key, item in value.items():
        if isinstance(item, Tensor):
            weights[key] = item
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            weights[key] = torch.from_numpy(item.astype(item.dtype.newbyteorder("=")))
        elif isinstance(item, int | float | np.number) and key.rpartition("module.")[2] in _SCALARS:
            weights[key] = torch.tensor(float(item))
    return weights


def checkpoint_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint of a run, a file or a folder; None for a whole one. Raises OSError."""
    return sharded_damage(path) if path.is_dir() else zip_damage(path)


def checkpoint_checksum(path: Path) -> str:
    """A SHA-256 that tells checkpoints of runs apart, files and folders. Raises OSError."""
    return sharded_checksum(path) if path.is_dir() else zip_checksum(path)


def checkpoint_digest(path: Path) -> str:
    """SHA-256 of a file of weights; of a sharded checkpoint that of its table of contents. Raises OSError."""
    return sharded_checksum(path) if path.is_dir() else file_digest(path, "sha256")


def teacher_weights(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The weights of a teacher in a checkpoint: an average of the model's (EMA), or another frozen model.

    Args:
        content: Of :func:`load_checkpoint`.
        name: Of the teacher, as in `train.teachers` of the run.

    Raises:
        CheckpointError: when the checkpoint holds no teacher of that name.
    """
    teachers = content.get("teachers")
    held = teachers if isinstance(teachers, Mapping) else {}
    state = weights_in(read_stored(held.get(name))) or {}
    prefix = "encoder."
    weights = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if not weights:
        raise CheckpointError(
            f"no teacher {name!r}; it holds the weights of {listed(['model', *map(str, held)])}."
        )
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
        if iteration is not None and (path.is_file() if path.suffix else path.is_dir()):
            dated.append((iteration, path.name == FINAL_NAME, path))
    return [path for *_, path in sorted(dated, reverse=True)]


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint.txt`` names, else the newest one that is there; None without any.

    A pointer that names no file of the folder is passed over with a warning.

    Raises:
        CheckpointError: when the pointer names no file of the folder, and there is no checkpoint.
    """
    pointer = folder / LAST_NAME
    if not os.path.lexists(pointer):
        return next(iter(checkpoints(folder)), None)
    try:
        return _named(pointer)
    except ValueError as error:
        newest = next(iter(checkpoints(folder)), None)
        if newest is None:
            raise CheckpointError(
                f"{pointer}: {error}, and {folder} has no checkpoint; put one back, and write its name there."
            ) from error
        logger.warning("{}: {}; taking {}, the newest", pointer, error, newest.name)
    return newest


def _named(pointer: Path) -> Path:
    """The file that a pointer names, in its folder. Raises ValueError that says what it holds instead."""
    try:
        text = read_regular(pointer, max_bytes=_LONGEST_POINTER).decode("utf-8").strip()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ValueError("is not text") from error
    if not text:
        raise ValueError("is empty")
    shown = printable(text, limit=80)
    folder, path = pointer.parent, pointer.parent / text
    if (
        len(text.splitlines()) > 1
        or "\0" in text
        or os.path.realpath(path.parent) != os.path.realpath(folder)
    ):
        raise ValueError(f"names {shown}, which is not the name of a file in this folder")
    try:
        there = path.is_file() or (path.is_dir() and periodic_iteration(path) is not None)
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise ValueError(f"names {shown}, which is not there")
    return folder / path.name


def checkpoint_file(path: str | Path) -> Path:
    """The path itself, or the last checkpoint of a run's folder. A sharded checkpoint is a folder itself.

    That is the one named in ``last_checkpoint.txt``: after the run was extended, ``checkpoint_final.pth`` is older.

    Raises:
        CheckpointError: for a folder that is not a run, or whose last checkpoint does not exist.
    """
    path = Path(path)
    if not path.is_dir() or is_sharded_checkpoint(path):
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
        return int(
            torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))["iteration"]
        )
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError,
        OverflowError, MemoryError, struct.error,
    ):  # fmt: skip
        return _UNREADABLE  # the error is raised when it is loaded


def _can_be_mapped(path: Path) -> bool:
    """Whether torch maps a file of this name: only one that is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _read_torch(path: Path, *, mapped: bool = False) -> Any:
    """The content of a file of torch.save, on the CPU; nothing in it is executed.

    NumPy arrays of numbers come as arrays, a ``defaultdict`` as a dict, paths as pure ones. ``mapped``: tensors are
    parts of the file that are read when they are used (not of the pickles that torch once wrote).

    Raises:
        CheckpointError: No such file, truncated, or with other objects in it, which are named.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise CheckpointError(f"{path}: is empty; expected a file written by torch.save, copy it again.")
    # the archive that torch.save writes, and the pickle it once wrote
    if start.lstrip().startswith(b"<"):
        raise CheckpointError(
            f"{path}: no checkpoint but a web page, as servers send in place of a file; remove it and download the "
            "file itself."
        )
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path}: no checkpoint ({path.stat().st_size} bytes that start with {start!r}); "
            "expected a file written by torch.save."
        )
    damage = zip_damage(path) if start.startswith(b"PK") else None
    if damage is not None:  # torch.load takes changed tensors
        raise CheckpointError(
            f"{path}: truncated or damaged ({path.stat().st_size} bytes; {damage}); "
            "expected a whole file written by torch.save, copy or download it again."
        )
    try:
        with torch.serialization.safe_globals(SAFE):
            mapped = mapped and start.startswith(b"PK") and _can_be_mapped(path)
            return plain(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle with more than tensors and plain values ({_others(path) or _culprit(str(error))}); "
            f"it was refused and not executed; expected {PLAIN}; save it anew without the rest."
        ) from error
    except (
        RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError,
        struct.error,
    ) as error:  # fmt: skip
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript archive, which holds code (OpenAI publishes its weights so); it was "
                "refused and not executed; expected tensors, save the state_dict of the one that open_clip makes of it."
            ) from error
        raise CheckpointError(
            f"{path}: truncated or no checkpoint ({path.stat().st_size} bytes; {_culprit(str(error))}); "
            "expected a whole file written by torch.save, copy or download it again."
        ) from error


def _others(path: Path) -> str:
    """The types in a file that are refused."""
    try:
        with torch.serialization.safe_globals(SAFE):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  # a second look at a broken file: torch's first message is shown
        return ""
    return listed(names) if names else ""


def _culprit(message: str) -> str:
    """The line of torch's long message that says what is wrong."""
    _, _, telling = message.partition("WeightsUnpickler error:")
    lines = [line.strip() for line in (telling.strip() or message).splitlines() if line.strip()]
    return (lines or ["unreadable"])[0][:160]
