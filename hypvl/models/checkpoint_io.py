"""Reading checkpoint files without ever running code in them, and putting their weights into a model."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.errors import CheckpointError
from hypvl.io.json_text import parse_json
from hypvl.models.convert import listed
from hypvl.models.differences import settings_that_differ
from hypvl.models.positions import Positions, with_positions_of
from hypvl.models.run_folder import checkpoint_file
from hypvl.models.safe_pickle import read_torch
from hypvl.models.weight_checks import check_encoders, check_values, our_names

# Written into our checkpoints as `format_version`; files of a later version are refused.
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Beside the weights in a .safetensors file; `root` of a .pth file.
ROOT_TENSOR = "root"
# 0-dim parameters that some trainers save as plain numbers.
_SCALARS = frozenset({"logit_scale", "logit_bias", "curv", "visual_alpha", "textual_alpha"})


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint differs from the model it was put into; names are ours.

    Attributes:
        missing: In the model, not in the file.
        unexpected: In the file, not in the model.
        misshaped: In both with different shapes, as ``name (shape in the file, expected shape)``.
        loaded: How many tensors were copied.
        resized: Tables of positions that were made for the model's resolution or length, in words.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    loaded: int
    resized: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        return self.text()

    def text(self, *, limit: int = 6) -> str:
        """The difference in words, with at most ``limit`` names of each kind."""
        parts = [
            f"{len(names)} {what}: {listed(names, limit=limit)}"
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.misshaped),
            )
            if names
        ]
        return "; ".join([*parts, *self.resized]) or "no difference"


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


def load_weights(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    strict: bool = True,
    allow_missing: Sequence[str] = (),
    positions: Positions = "interpolate",
) -> LoadReport:
    """Copy the weights and buffers of a checkpoint into a model.

    Buffers (pixel mean and standard deviation) come from the file: the weights were trained with them. Files of
    open_clip hold none: those that the model was asked to have stay, else OpenAI's are taken.

    Args:
        model: A ``DualEncoder``.
        checkpoint: A path, what :func:`load_checkpoint` returned, or a state_dict; published names and those of
            open_clip and OpenAI CLIP files are converted.
        strict: False copies what fits and leaves the rest of the model as it is; the report says what
            differed.
        allow_missing: Names, or shell patterns of names (``"*_head.log_scale"``), of the model that the file may
            lack even so: what a second stage adds. They stay as they are and are in the report.
        positions: Of tables of positions of another length. ``"interpolate"``: learned ones of image patches are
            interpolated to the model's resolution, as timm does, and a log line says so; those of texts have to fit.
            ``"stretch"``: also makes a shorter table of text positions as long as the model's (77 -> 248, see
            :func:`~hypvl.encoders.positions.stretch_positions`), and starts a second table equal to the first
            where the model has two and the file one. ``"exact"``: other lengths are an error.

    Raises:
        ValueError: For another value of ``positions``, or a pattern that names nothing in the model.
        CheckpointError: With ``strict``, any difference; without, when nothing fits, or nothing of a whole encoder
            that ``allow_missing`` does not name. Always for weights that hold NaN or infinities, or integers, booleans
            or complex numbers where the model has floats.
    """
    one_of("positions", positions, Positions)
    source = "checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    content = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    given = weights_in(content) or weights_in(content.get("model"))
    if given is None:
        raise CheckpointError(
            f"{source}: keys {listed(map(str, content))}; expected a state_dict or a dict with `model`."
        )
    try:
        state = our_names(given, model, source=source)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    wanted = model.state_dict()
    state, resized = with_positions_of(model, state, positions=positions, source=source)
    fitting = {key: t for key, t in state.items() if key in wanted and t.shape == wanted[key].shape}
    report = LoadReport(
        missing=tuple(key for key in wanted if key not in state),
        unexpected=tuple(key for key in state if key not in wanted),
        misshaped=tuple(
            f"{key} ({tuple(state[key].shape)} in the file, expected {tuple(wanted[key].shape)})"
            for key in wanted
            if key in state and key not in fitting
        ),
        loaded=len(fitting),
        resized=resized,
    )
    for pattern in allow_missing:
        if not fnmatch.filter(wanted, pattern):
            raise ValueError(
                f"allow_missing: {pattern!r} names nothing in the model; it has {listed(wanted)}."
            )
    allowed = {key for pattern in allow_missing for key in fnmatch.filter(wanted, pattern)}
    needed = replace(report, missing=tuple(key for key in report.missing if key not in allowed))
    if (strict and needed.differs) or not fitting:
        told = {key: tensor for key, tensor in wanted.items() if key in state or key in needed.missing}
        raise CheckpointError(f"{source}: does not fit the model: {_difference(state, told, needed)}")
    check_encoders(model, fitting, allowed=allowed, state=state, source=source)
    check_values(fitting, wanted, source=source)
    for line in resized:
        logger.info("{}: {}", source, line)
    model.load_state_dict(fitting, strict=False)
    return report


def weights_in(value: Any) -> dict[str, Tensor] | None:
    """The tensors of a state_dict; None for what is none.

    Plain data among them is no weight (an epoch, a version), but for numbers by the name of one (``logit_scale``), and
    NumPy arrays of numbers.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    plain = (Tensor, np.ndarray, np.generic, int, float, complex, str, type(None))
    if not any(isinstance(item, Tensor) for item in value.values()) or not all(
        isinstance(item, plain) for item in value.values()
    ):
        return None
    found: dict[str, Tensor] = {}
    for key, item in value.items():
        if isinstance(item, Tensor):
            found[key] = item
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            found[key] = torch.from_numpy(item.astype(item.dtype.newbyteorder("=")))
        elif isinstance(item, int | float | np.number) and key.rpartition("module.")[2] in _SCALARS:
            found[key] = torch.tensor(float(item))
    return found


def _difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], report: LoadReport) -> str:
    """What to tell of a file of another model: the settings that differ, else the names."""
    settings = settings_that_differ(state, wanted)
    if not settings:
        return f"{report}."
    told = f"{'; '.join(settings)} ({report.text(limit=2)})"
    return f"{told}; choose the model definition that the file was trained with."


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
