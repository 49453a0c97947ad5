"""May a trunk be run in micro-batches, and run twice? Only if no row depends on another and nothing else changes."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hypvl.errors import ConfigError
from hypvl.losses.base import View
from hypvl.training.generators import rng_state, set_rng_state
from hypvl.training.learner import Learner, Rows

# Largest relative difference that is rounding: another kernel, packed texts. A batch statistic of two rows is far off.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
_ROUNDING_16_BIT = 5e-2
_ADVICE = (
    "use an encoder whose norms see one row at a time (LayerNorm, GroupNorm, frozen batch norms), or leave "
    "train.grad_cache.micro_batch at null and train.accumulate at 1."
)


def refuse_batch_statistics(learner: Learner) -> None:
    """Refuse trunks with norms that look at the batch or move running statistics in ``forward``.

    Heads may have them: they see the whole batch once.

    Args:
        learner: In the mode it is trained in.

    Raises:
        ConfigError: naming the module.
    """
    for view in learner.views:
        trunk = "visual" if view.modality == "image" else "textual"
        for name, module in learner.encoder(view).named_modules():
            of_batch = isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
            moving = isinstance(module, _InstanceNorm) and module.training and module.track_running_stats
            if of_batch or moving:
                path = f"model.{trunk}.{name}" if name else f"model.{trunk}"
                raise ConfigError(
                    f"train.grad_cache.micro_batch: {path} is a {type(module).__name__}, whose statistics would be "
                    f"those of a micro-batch or move twice per step; {_ADVICE}"
                )


@torch.no_grad()
def refuse_coupled_rows(learner: Learner, view: View, rows: Rows) -> None:
    """Refuse a trunk in which the features of one row change with another row, or that changes its buffers.

    The same random numbers are drawn both times, so dropout is no difference. The caller restores the generators.

    Args:
        learner: In the mode it is trained in, under the run's autocast.
        view: Which trunk.
        rows: Inputs of that view; fewer than two rows show nothing.

    Raises:
        ConfigError: naming the trunk, or the module whose buffer changed.
    """
    if len(rows.values) < 2:
        return
    encoder = learner.encoder(view)
    name = "visual" if view.modality == "image" else "textual"
    device = rows.values.device
    state = rng_state(device)
    one = learner.trunk(view, rows[[0, -1]])[0]
    before = {key: (id(buffer), buffer._version) for key, buffer in encoder.named_buffers()}
    set_rng_state(state, device)
    other = learner.trunk(view, rows[[0, 0]])[0]
    for key, buffer in encoder.named_buffers():
        if before.get(key) != (id(buffer), buffer._version):
            raise ConfigError(
                f"train.grad_cache.micro_batch: model.{name}.{key} changes whenever model.{name} encodes, which "
                f"here happens twice per step and in parts; {_ADVICE}"
            )
    if differ(one, other):
        raise ConfigError(
            f"train.grad_cache.micro_batch: in model.{name} ({type(encoder).__name__}) the features of a row depend "
            f"on the other rows, so micro-batches would change them; {_ADVICE}"
        )


def refuse_other_features(learner: Learner, view: View, first: Tensor, again: Tensor) -> None:
    """Refuse a trunk that gave other features when it was run again on the same rows and random numbers.

    Raises:
        ConfigError: naming the trunk.
    """
    if differ(first, again):
        name = "visual" if view.modality == "image" else "textual"
        raise ConfigError(
            f"train.grad_cache.micro_batch: model.{name} ({type(learner.encoder(view)).__name__}) gave other features "
            "when it encoded the same rows a second time, so gradients would be wrong; it may draw from torch's "
            "generators only and keep nothing from one call to the next."
        )


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether features differ by more than rounding (waits for the device). NaN is no difference."""
    if not a.numel():
        return False
    limit = _ROUNDING.get(a.dtype, _ROUNDING_16_BIT)
    if torch.is_autocast_enabled(a.device.type):
        limit = _ROUNDING_16_BIT
    scale = torch.maximum(a.detach().abs().max(), b.detach().abs().max())
    return bool((a.detach() - b.detach()).abs().max() > limit * scale)
