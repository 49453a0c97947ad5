"""What weights from a file have to be before a model takes them."""

from collections.abc import Collection, Mapping

import torch
from loguru import logger
from torch import Tensor, nn

from hypvl.errors import CheckpointError
from hypvl.models import convert_open_clip
from hypvl.models.convert import POSITIONS, listed, to_hypvl
from hypvl.models.differences import settings_that_differ
from hypvl.models.positions import IMAGE_POSITIONS


def our_names(given: Mapping[str, Tensor], model: nn.Module, *, source: str) -> dict[str, Tensor]:
    """Weights by our names; pixel statistics are the file's, or what was asked for where it has none.

    Where these are not what was asked for, or not what such files usually need, a warning says so.

    Raises:
        CheckpointError: As the two ``to_hypvl``.
    """
    visual = getattr(model, "visual", None)
    asked: frozenset[str] = getattr(visual, "asked_pixels", frozenset())
    buffers: dict[str, Tensor] = {name: getattr(visual, name).detach() for name in asked}
    own = {name: values.cpu().float() for name, values in buffers.items() if not values.is_meta}
    if not convert_open_clip.is_open_clip(given):
        state = to_hypvl(given)
        for name, values in own.items():
            theirs = state.get(f"visual.{name}")
            if theirs is not None and not torch.allclose(
                theirs.cpu().float().view(-1), values.view(-1), atol=1e-6
            ):
                logger.warning(
                    "{}: its {} {} stands, not {} of the config: the weights were trained with it",
                    source, name, _rounded(theirs), _rounded(values),
                )  # fmt: skip
        return state
    state = convert_open_clip.to_hypvl(given)
    for name, values in own.items():
        usual = state[f"visual.{name}"]
        if not torch.allclose(usual, values, atol=1e-6):
            logger.warning(
                "{}: {} {} of the config stays; the file does not say its own, and nearly all weights of open_clip and "
                "OpenAI were trained with {}",
                source, name, _rounded(values), _rounded(usual),
            )  # fmt: skip
        state[f"visual.{name}"] = values
    return state


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.flatten().tolist()]


def check_encoders(
    model: nn.Module,
    fitting: Mapping[str, Tensor],
    *,
    allowed: Collection[str],
    state: Mapping[str, Tensor],
    source: str,
) -> None:
    """A whole encoder that would keep its random weights is no start, unless it is allowed by name.

    Args:
        model: What the weights are for.
        fitting: Those that fit.
        allowed: Names that the file may lack.
        state: All that the file has.
        source: Of the weights, for messages.

    Raises:
        CheckpointError: naming the encoder.
    """
    for part in ("visual", "textual"):
        own = [name for name, _ in model.named_parameters() if name.startswith(f"{part}.")]
        own = [name for name in own if name not in (IMAGE_POSITIONS, POSITIONS)]
        if own and not set(own) <= set(allowed) and not any(name in fitting for name in own):
            settings = "; ".join(settings_that_differ(state, model.state_dict()))
            raise CheckpointError(
                f"{source}: nothing in it fits model.{part}, whose {len(own)} weights would stay as they are"
                f"{f' ({settings})' if settings else ''}; expected the whole model, or that part allowed by name, "
                f"allow_missing=['{part}.*'] (train.init_missing=[{part}.*])."
            )


def check_values(fitting: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, source: str) -> None:
    """Weights are finite numbers of the kind that the model has; a model on the meta device has shapes alone.

    Raises:
        CheckpointError: for NaN and infinities; for integers, booleans and complex numbers where the model has floats,
            and floats where it has integers; for quantized, sparse and meta tensors. The weight is named.
    """
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
