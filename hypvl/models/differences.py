"""How the model of a checkpoint differs from another one, as settings of a config."""

from collections.abc import Mapping

from torch import Tensor

from hypvl.models.convert import listed
from hypvl.models.convert.meru import NAMES

_TRUNK, _TEXT = "visual.trunk.", "textual."


def settings_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The settings of a model that can be read from the names and shapes of its weights.

    Args:
        state: Weights by our names.
    """
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
    head = _shape(state, NAMES["visual_proj.weight"]) or _shape(state, NAMES["textual_proj.weight"])
    _put(settings, "out_features of the heads", head[0] if len(head) == 2 else None)
    _put(settings, "geometry", _geometry(state))
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
    curv = state.get(NAMES["curv"])
    if curv is None:
        return "without a curvature"
    return "hyperbolic (it has a curvature)" if curv.ndim == 0 else f"a product of {len(curv)} curved factors"
