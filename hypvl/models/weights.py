"""Putting the weights of a checkpoint into a model: names, shapes and values are checked first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from loguru import logger
from torch import Tensor, nn

from hypvl.checks import names_parameter, one_of
from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import load_without_moments, weights_in
from hypvl.models.convert import (
    clip_files,
    is_open_clip,
    listed,
    meru,
    open_clip,
    published,
    without_wrappers,
)
from hypvl.models.dual_encoder import TRAINING_ONLY
from hypvl.models.positions import IMAGE_POSITIONS, Positions, with_positions_of

_TRUNK, _TEXT = "visual.trunk.", "textual."

_FILE_STANDS = (
    "{source}: its {name} {theirs} stands, not {given} of the config: the weights were trained with it"
)
_GIVEN_STAYS = (
    "{source}: {name} {given} of the config stays; the file does not say its own, and nearly all such weights of "
    "open_clip and OpenAI were trained with {theirs}"
)


_PARTS = ("visual", "textual")
_ENDS = (".", "_head.")  # after the name of a part: its encoder and its head


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint differs from the model it was put into; names are ours."""

    missing: tuple[str, ...]  # in the model, not in the file
    unexpected: tuple[str, ...]  # in the file, not in the model
    misshaped: tuple[str, ...]  # in both with different shapes, ``name (shape in the file, expected shape)``
    loaded: int  # how many tensors were copied
    #: Tables of positions that were made for the model's resolution or length, in words.
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


def load_weights(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    strict: bool = True,
    allow_missing: Sequence[str] = (),
    positions: Positions = "interpolate",
    pixels: Literal["compare", "known"] = "compare",
) -> LoadReport:
    """Copy the weights and buffers of a checkpoint into a model.

    Buffers (pixel mean and standard deviation) come from the file: the weights were trained with them. Files of
    open_clip hold none: those that the model was asked to have stay, else OpenAI's are taken.

    Args:
        model: A ``DualEncoder``.
        checkpoint: A path, a dict of :func:`load_checkpoint`, or a state_dict; published names and those of
            open_clip and OpenAI CLIP files are converted.
        strict: False copies the tensors that fit and leaves the rest of the model unchanged; the report lists the
            differences.
        allow_missing: Patterns of names of the model that the file may lack (:func:`hypvl.checks.names_parameter`,
            such as ``"*_head.log_scale"``): what a second stage adds. They stay as they are and are in the report.
            An encoder whose names, with those of its head, are all among them (``"visual*"``) is taken as a whole, or,
            where something of it does not fit, not at all.
        positions: Of tables of positions of another length. ``"interpolate"``: learned ones of image patches are
            interpolated to the model's resolution, as timm does, and a log line says so; those of texts have to fit.
            ``"stretch"``: also makes a shorter table of text positions as long as the model's (77 -> 248, see
            :func:`~hypvl.models.positions.stretch_positions`), and starts a second table equal to the first
            where the model has two and the file one. ``"exact"``: other lengths are an error.
        pixels: ``"known"``: the model was built with the pixel statistics of a file of open_clip; no warning that other
            files have others.

    Raises:
        ValueError: For another value of ``positions``, or a pattern that names nothing in the model.
        CheckpointError: With ``strict``, any difference (but for an encoder that the model lacks, and for what only
            training uses, :data:`~hypvl.models.dual_encoder.TRAINING_ONLY`); without, when
            nothing fits, or nothing of a whole encoder that ``allow_missing`` does not name. Always for weights that
            hold NaN or infinities, or integers, booleans or complex numbers where the model has floats.

    Example:
        >>> from hypvl.models.hub import create_model
        >>> model = create_model("clip_vit_s")
        >>> load_weights(model, model.state_dict()).text()
        'no difference'
    """
    one_of("positions", positions, Positions)
    one_of("pixels", pixels, ("compare", "known"))
    source = "checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    content = checkpoint if isinstance(checkpoint, Mapping) else load_without_moments(checkpoint)
    given = weights_in(content) or weights_in(content.get("model"))
    if given is None:
        raise CheckpointError(
            f"{source}: keys {listed(map(str, content))}; expected a state_dict or a dict with `model`."
        )
    try:
        state = _our_names(given, model, source=source, warns=pixels == "compare")
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    wanted = model.state_dict()
    state = _scales_of_factors(state, wanted, source=source)
    absent = tuple(f"{part}{end}" for part in _PARTS if getattr(model, part, "") is None for end in _ENDS)
    absent += _new_encoders(model, state, patterns=allow_missing)
    absent += tuple(f"{part}." for part in TRAINING_ONLY if getattr(model, part, None) is None)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(absent)}
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
    allowed = {key for key in wanted if key.startswith(tuple(f"{part}." for part in TRAINING_ONLY))}
    for pattern in allow_missing:
        names = {key for key in wanted if names_parameter(pattern, key)}
        allowed |= names
        if not names:
            raise ValueError(
                f"allow_missing: {pattern!r} names nothing in the model; it has {listed(wanted)}."
            )
    needed = replace(report, missing=tuple(key for key in report.missing if key not in allowed))
    if (strict and needed.differs) or not fitting:
        compared = {key: tensor for key, tensor in wanted.items() if key in state or key in needed.missing}
        text = _difference(state, compared, needed, family=_other_family(given, wanted))
        raise CheckpointError(f"{source}: does not fit the model: {text}")
    _check_encoders(model, fitting, allowed=allowed, state=state, source=source)
    _check_values(fitting, wanted, source=source)
    for line in resized:
        logger.info("{}: {}", source, line)
    model.load_state_dict(fitting, strict=False)
    return report


def _scales_of_factors(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """The weights with a scale for each factor of a product, where the file has one scale for all: the same model."""
    curv = state.get(meru.NAMES["curv"])
    result = dict(state)
    for head in ("visual_head", "textual_head"):
        name = f"{head}.log_scale"
        theirs, ours = state.get(name), wanted.get(name)
        if theirs is None or ours is None or curv is None or curv.shape != ours.shape or ours.ndim != 1:
            continue
        if theirs.ndim == 0:
            result[name] = theirs.expand(ours.shape).clone()
            logger.info("{}: its {} of all factors becomes that of each of {}", source, name, len(ours))
    return result


def _new_encoders(
    model: nn.Module, state: Mapping[str, Tensor], *, patterns: Sequence[str]
) -> tuple[str, ...]:
    """Beginnings of the names of encoders, with heads, that may be missing as a whole and do not fit as a whole."""
    new: list[str] = []
    for part in _PARTS:
        prefixes = tuple(f"{part}{end}" for end in _ENDS)
        own = {name: p for name, p in model.named_parameters() if name.startswith(prefixes)}
        allowed = all(any(names_parameter(pattern, name) for pattern in patterns) for name in own)
        fits = all(name in state and state[name].shape == p.shape for name, p in own.items())
        if own and allowed and not fits:
            new += prefixes
    return tuple(new)


def _other_family(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Which kinds of published model a file and the model are, in words, where both are known and differ."""
    if is_open_clip(given) or not without_wrappers(given).keys().isdisjoint(meru.NAMES.values()):
        return None  # no published names
    theirs, ours = published.family_of_file(given), published.family_of_model(wanted)
    if theirs is ours:
        return None
    return (
        f"a checkpoint of {theirs.name}, not of {ours.name}; build {theirs.definitions}, or give another file"
    )


def _difference(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    report: LoadReport,
    *,
    family: str | None = None,
) -> str:
    """The message about a file of another model: its family, else the settings that differ, else the names."""
    if family is not None:
        return f"{family} ({report.text(limit=2)})."
    settings = settings_that_differ(state, wanted)
    if not settings:
        return f"{report}."
    differing = f"{'; '.join(settings)} ({report.text(limit=2)})"
    return f"{differing}; choose the model definition that the file was trained with."


def _our_names(
    given: Mapping[str, Tensor], model: nn.Module, *, source: str, warns: bool
) -> dict[str, Tensor]:
    """Weights by our names; pixel statistics are the file's, or the given ones where it has none.

    A warning says where they differ from the given ones, or (``warns``) from those that such files usually need.
    """
    visual = getattr(model, "visual", None)
    asked: frozenset[str] = getattr(visual, "asked_pixels", frozenset())
    buffers: dict[str, Tensor] = {name: getattr(visual, name).detach() for name in asked}
    without_pixels = is_open_clip(given)
    state = (
        clip_files.to_hypvl(given, wanted=model.state_dict()) if without_pixels else published.to_hypvl(given)
    )
    openai_pixels = warns and without_pixels and open_clip.is_openai_style(given)
    for name, values in buffers.items():
        theirs = state.get(f"visual.{name}")
        if values.is_meta or theirs is None:
            continue
        values = values.cpu().float()
        differ = not torch.allclose(theirs.cpu().float().view(-1), values.view(-1), atol=1e-6)
        if differ and (openai_pixels or not without_pixels):
            logger.warning(
                _GIVEN_STAYS if without_pixels else _FILE_STANDS,
                source=source, name=name, given=_rounded(values), theirs=_rounded(theirs),
            )  # fmt: skip
        if without_pixels:
            state[f"visual.{name}"] = values
    return state


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.flatten().tolist()]


def _check_encoders(
    model: nn.Module,
    fitting: Mapping[str, Tensor],
    *,
    allowed: Collection[str],
    state: Mapping[str, Tensor],
    source: str,
) -> None:
    """Refuse a file (``state``) that leaves a whole encoder at its random weights, unless it is ``allowed`` by name."""
    for part in _PARTS:
        own = [name for name, _ in model.named_parameters() if name.startswith(f"{part}.")]
        own = [name for name in own if name not in (IMAGE_POSITIONS, meru.POSITIONS)]
        if own and not set(own) <= set(allowed) and not any(name in fitting for name in own):
            settings = "; ".join(settings_that_differ(state, model.state_dict()))
            raise CheckpointError(
                f"{source}: nothing in it fits model.{part}, whose {len(own)} weights would stay as they are"
                f"{f' ({settings})' if settings else ''}; expected the whole model, or that part allowed by name, "
                f"allow_missing=['{part}.*'] (train.init_missing=[model.{part}.*])."
            )


def _check_values(fitting: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights that are not finite numbers of the model's kind; on the meta device only shapes are known."""
    for name, tensor in fitting.items():
        floats = wanted[name].is_floating_point()
        no_values = tensor.is_meta and not wanted[name].is_meta
        if tensor.layout != torch.strided or tensor.is_quantized or no_values:
            raise CheckpointError(
                f"{source}: {name} is a {'quantized' if tensor.is_quantized else 'sparse or empty'} tensor; expected "
                "plain numbers, save it as such."
            )
        if tensor.is_floating_point() != floats or tensor.is_complex():
            raise CheckpointError(
                f"{source}: {name} holds {tensor.dtype}; expected {'floating-point numbers' if floats else 'integers'}"
                f", as the model's {wanted[name].dtype}."
            )
    broken = [
        name for name, tensor in fitting.items() if tensor.is_floating_point() and not _is_finite(tensor)
    ]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} of {len(fitting)} weights hold NaN or infinity: {listed(broken)}; "
            "take an earlier checkpoint."
        )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_meta:
        return True
    return bool((tensor.float() if tensor.element_size() == 1 else tensor).isfinite().all())


def settings_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The settings of a model that can be read from the names (ours) and shapes of its weights."""
    settings: dict[str, str] = {}
    _put(settings, "image encoder", _kind(state))
    tokens = _shape(state, _TRUNK + "pos_embed")
    patch = _shape(state, _TRUNK + "patch_embed.proj.weight")
    width = _shape(state, _TRUNK + "cls_token") or patch[:1] or tokens
    _put(settings, "width of model.visual", width[-1] if width else None)
    _put(settings, "blocks of model.visual", _depth(state, _TRUNK + "blocks.", "visual.blocks."))
    if len(patch) == 4:
        _put(settings, "patch size of model.visual", f"{patch[2]} x {patch[3]}")
    if len(tokens) == 3:
        _put(settings, "positions of model.visual (its image_size)", tokens[1])
    layers = _depth(state, _TEXT + "resblocks.")
    text = _shape(state, _TEXT + "token_embed.weight")
    positions = _shape(state, _TEXT + "posit_embed")
    text_width = (text or positions)[-1:]
    if layers and text_width:
        _put(settings, "model.textual.arch", f"L{layers}_W{text_width[0]}")
    _put(settings, "model.textual.vocab_size", text[0] if len(text) == 2 else None)
    _put(settings, "model.textual.context_length", positions[0] if len(positions) == 2 else None)
    tables = sum(f"{_TEXT}{name}" in state for name in ("posit_embed", "posit_embed_res"))
    _put(settings, "number of tables of text positions (fixed_positions)", tables or None)
    head = _shape(state, meru.NAMES["visual_proj.weight"]) or _shape(state, meru.NAMES["textual_proj.weight"])
    _put(settings, "out_features of the heads", head[0] if len(head) == 2 else None)
    _put(settings, "geometry", _geometry(state))
    scales = sum(name.startswith("scorer.log_scale") for name in state)
    _put(settings, "number of logit scales", scales or None)
    for part in ("image_transforms", "text_transforms"):
        _put(settings, f"number of model.{part}", _depth(state, f"{part}.") or 0)
    _put(settings, "model.scorer", "with a bias" if "scorer.bias" in state else "without a bias")
    return settings


def settings_that_differ(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """``"model.textual.context_length is 77 in the file, 248 in the model"`` for each setting that both show."""
    theirs, ours = settings_of(state), settings_of(wanted)
    return [
        f"{name} is {value} in the file, {ours[name]} in the model"
        for name, value in theirs.items()
        if name in ours and ours[name] != value
    ]


def _put(settings: dict[str, str], name: str, value: object) -> None:
    if value is not None:
        settings[name] = str(value)


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(state[name].shape) if name in state else ()


def _depth(state: Mapping[str, Tensor], *prefixes: str) -> int | None:
    for prefix in prefixes:
        blocks = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
        if blocks:
            return len(blocks)
    return None


def _kind(state: Mapping[str, Tensor]) -> str | None:
    """The kind of image encoder, by the first parts of its parameter names."""
    names = [name.removeprefix("visual.") for name in state if name.startswith("visual.")]
    trunk = [name.removeprefix("trunk.") for name in names if name.startswith("trunk.")]
    steps = {name.split(".")[0] for name in trunk or names} - {"pixel_mean", "pixel_std"}
    if not steps:
        return None
    if steps & {"blocks"} and steps & {"patch_embed"}:
        return "a vision transformer"
    return f"one of {listed(sorted(steps), limit=4)}"


def _geometry(state: Mapping[str, Tensor]) -> str:
    curv = state.get(meru.NAMES["curv"])
    if curv is None:
        return "without a curvature"
    return "hyperbolic (it has a curvature)" if curv.ndim == 0 else f"a product of {len(curv)} curved factors"
