"""Reading checkpoint files without ever running code in them, and putting their weights into a model."""

import fnmatch
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hypvl.encoders.positions import stretch_positions
from hypvl.errors import CheckpointError
from hypvl.io.zip_check import zip_damage
from hypvl.models import convert_open_clip
from hypvl.models.convert import NAMES, POSITIONS, listed, to_hypvl
from hypvl.models.run_folder import checkpoint_file

TextPositions: TypeAlias = Literal["exact", "stretch"]

# Written into our checkpoints as `format_version`; files of a later version are refused.
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Beside the weights in a .safetensors file; `root` of a .pth file.
ROOT_TENSOR = "root"
# The second table of a text encoder with fixed positions, see TextTransformer.
RESIDUAL_POSITIONS = "textual.posit_embed_res"


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint differs from the model it was put into; names are ours.

    Attributes:
        missing: In the model, not in the file.
        unexpected: In the file, not in the model.
        misshaped: In both with different shapes, as ``name (shape in the file, expected shape)``.
        loaded: How many tensors were copied.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    loaded: int

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {what}: {listed(names)}"
            for what, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.misshaped),
            )
            if names
        ]
        return "; ".join(parts) or "no difference"


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
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; expected a dict with the key `model`."
        )
    if "model" not in content and _is_state_dict(content):
        content = {"model": content}
    elif "model" not in content and _is_state_dict(content.get("state_dict")):  # a training run of open_clip
        content = {**content, "model": content["state_dict"]}
    if not _is_state_dict(content.get("model")):
        raise CheckpointError(
            f"{path}: no checkpoint, its keys are {listed(map(str, content))}; "
            "expected the key `model` with a state_dict (names and tensors)."
        )
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
    positions: TextPositions = "exact",
) -> LoadReport:
    """Copy the weights and buffers of a checkpoint into a model.

    Buffers (pixel mean and standard deviation) come from the file: the weights were trained with them.

    Args:
        model: A ``DualEncoder``.
        checkpoint: A path, what :func:`load_checkpoint` returned, or a state_dict; published names and those of
            open_clip and OpenAI CLIP files are converted.
        strict: False copies what fits and leaves the rest of the model as it is; the report says what
            differed.
        allow_missing: Names, or shell patterns of names (``"*_head.log_scale"``), of the model that the file may
            lack even so: what a second stage adds. They stay as they are and are in the report.
        positions: ``"stretch"`` makes a shorter table of text positions as long as the model's (77 -> 248, see
            :func:`~hypvl.encoders.positions.stretch_positions`), and starts a second table equal to the first
            where the model has two and the file one.

    Raises:
        ValueError: For another value of ``positions``, or a pattern that names nothing in the model.
        CheckpointError: With ``strict``, any difference; without, when nothing fits.
    """
    source = "checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    content = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    given = content if _is_state_dict(content) else content.get("model")
    if not _is_state_dict(given):
        raise CheckpointError(
            f"{source}: keys {listed(map(str, content))}; expected a state_dict or a dict with `model`."
        )
    try:
        state = (
            convert_open_clip.to_hypvl(given) if convert_open_clip.is_open_clip(given) else to_hypvl(given)
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    wanted = model.state_dict()
    if positions == "stretch":
        state = _stretched(state, wanted, source)
    elif positions != "exact":
        raise ValueError(f"positions: got {positions!r}; expected 'exact' or 'stretch'.")
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
    )
    for pattern in allow_missing:
        if not fnmatch.filter(wanted, pattern):
            raise ValueError(
                f"allow_missing: {pattern!r} names nothing in the model; it has {listed(wanted)}."
            )
    needed = tuple(
        key for key in report.missing if not any(fnmatch.fnmatch(key, pattern) for pattern in allow_missing)
    )
    if (strict and replace(report, missing=needed).differs) or not fitting:
        told = {key: tensor for key, tensor in wanted.items() if key in state or key in needed}
        raise CheckpointError(
            f"{source}: does not fit the model: {replace(report, missing=needed)}.{_hint(state, told)}"
        )
    model.load_state_dict(fitting, strict=False)
    return report


def _stretched(state: dict[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state with text positions as the model has them; its other tensors are untouched."""
    if POSITIONS not in state or POSITIONS not in wanted:
        where = source if POSITIONS not in state else "the model"
        raise CheckpointError(
            f"positions='stretch': {where} has no {POSITIONS}; expected a text transformer's."
        )
    table, length = state[POSITIONS], len(wanted[POSITIONS])
    if len(table) != length:
        stretched = stretch_positions(table)
        if len(stretched) != length:
            raise CheckpointError(
                f"positions='stretch': the {len(table)} positions of {source} become {len(stretched)}, but the model "
                f"has {length}; set model.textual.context_length={len(stretched)}."
            )
        table = stretched
    state = {**state, POSITIONS: table}
    if RESIDUAL_POSITIONS in wanted:
        state.setdefault(RESIDUAL_POSITIONS, table.clone())
    return state


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith(
        (b"PK", b"\x80")
    ):  # the archive that torch.save writes, and the pickle it once wrote
        raise CheckpointError(
            f"{path}: no checkpoint ({path.stat().st_size} bytes that start with {start!r}); "
            "expected a file written by torch.save."
        )
    if (
        start.startswith(b"PK") and (damage := zip_damage(path)) is not None
    ):  # torch.load takes changed tensors
        raise CheckpointError(
            f"{path}: truncated or damaged ({path.stat().st_size} bytes; {damage}); "
            "expected a whole file written by torch.save, copy or download it again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle with more than tensors and plain values ({_culprit(str(error))}); "
            "it was refused and not executed; expected a checkpoint of tensors, save its state_dict anew."
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript archive, which holds code (OpenAI publishes its weights so); it was "
                "refused and not executed; expected tensors, save the state_dict of the one that open_clip makes of it."
            ) from error
        raise CheckpointError(
            f"{path}: truncated or no checkpoint ({path.stat().st_size} bytes; {_culprit(str(error))}); "
            "expected a whole file written by torch.save, copy or download it again."
        ) from error


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
            content["config"] = json.loads(beside.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{beside}: not JSON ({error}); expected the config of {path.name}."
            ) from error
    return content


def _culprit(message: str) -> str:
    """The line of torch's long message that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["unreadable"]
    telling = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (telling or lines)[0].removeprefix("WeightsUnpickler error:").strip()[:160]


def _is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _hint(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What the difference means, where the names and shapes say it."""
    hints = []
    curved = [NAMES["curv"] in names for names in (state, wanted)]
    if curved[0] != curved[1]:
        kind = {True: "hyperbolic (it has a curvature)", False: "not hyperbolic (it has no curvature)"}
        hints.append(f"the model in the file is {kind[curved[0]]}, the one to load into is {kind[curved[1]]}")
    for what, width, blocks in (
        ("image", "visual.trunk.cls_token", "visual.trunk.blocks."),
        ("text", "textual.posit_embed", "textual.resblocks."),
    ):
        sizes = [_size(names, width, blocks) for names in (state, wanted)]
        if all(sizes) and sizes[0] != sizes[1]:
            hints.append(f"the file's {what} encoder is {sizes[0]}, the model's {sizes[1]}")
    return (
        f" Hint: {'; '.join(hints)}; choose the model definition the file was trained with." if hints else ""
    )


def _size(state: Mapping[str, Tensor], width: str, blocks: str) -> str:
    if width not in state:
        return ""
    depth = len({key.removeprefix(blocks).split(".")[0] for key in state if key.startswith(blocks)})
    return f"{state[width].shape[-1]} wide with {depth} blocks"
