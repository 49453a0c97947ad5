"""One training step: forward and backward, clipping, the optimizer's step."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.losses.base import LossOutput, PairContext
from hypvl.training.averaging import GradientAverage
from hypvl.training.grad_cache import GradCache
from hypvl.training.precision import Precision


def forward_backward(
    learner: nn.Module,
    batch: Mapping[str, Any],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    cache: GradCache | None = None,
) -> tuple[LossOutput, PairContext]:
    """Loss of the batch and its gradients, added into ``.grad``.

    Args:
        learner: A :class:`~hypvl.training.learner.Learner`, possibly wrapped by DDP.
        batch: Local batch on the model's device.
        precision: Precision of the forward pass.
        scaler: Scales the loss in fp16.
        cache: Encodes in micro-batches, with the same result; then gradients are averaged over ranks also without DDP.

    Returns:
        The loss and the context that ``Objective.update_`` takes.
    """
    if cache is not None:
        return cache(learner, batch, precision=precision, scaler=scaler)
    with precision.autocast():
        output, ctx = learner(batch)
    scaler.scale(output.total).backward()
    return output, ctx


def naive_forward_backward(
    learner: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    parts: int,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    average: GradientAverage,
) -> tuple[LossOutput, list[PairContext]]:
    """Mean of the losses of several batches, each on its own, and its gradients, added into ``.grad``.

    A term that compares samples with each other sees those of one part only: for contrastive losses this is another
    objective than that of the joined batch, with fewer negatives.

    Args:
        learner: A :class:`~hypvl.training.learner.Learner`, not wrapped by DDP.
        batches: The ``parts`` local batches of the step, taken one after the other.
        parts: Their number.
        precision: Precision of the forward passes.
        scaler: Scales the loss in fp16.
        average: Takes the mean over ranks of the gradients, once.

    Returns:
        Means over the parts, and the context of each part in order.
    """
    outputs, contexts = [], []
    for batch in batches:
        with precision.autocast():
            output, ctx = learner(batch)
        scaler.scale(output.total / parts).backward()
        outputs.append(LossOutput(output.total.detach(), output.terms))
        contexts.append(ctx)
    assert len(outputs) == parts
    average(learner.parameters())
    terms = {name: torch.stack([o.terms[name] for o in outputs]).mean() for name in outputs[0].terms}
    return LossOutput(torch.stack([o.total for o in outputs]).mean(), terms), contexts


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[Tensor],
    *,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None,
    loss: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Unscale, clip and step, then clear the gradients; where something is not finite, no step (a collective).

    The ranks agree: a loss that is not finite on one of them, or gradients that are not, leave weights, moments and
    step counts as they are on all of them. Nothing waits for the device where the optimizer itself can leave a step
    out (the fused ones); others are asked first, and so is fp16.

    Args:
        optimizer: What steps.
        parameters: Whose gradient norm is taken and clipped.
        scaler: The run's scaler; overflow lowers its scale.
        clip_norm: Largest allowed norm of all gradients together; None = only measured.
        loss: This rank's loss, 0-dim.

    Returns:
        The gradient norm before clipping and whether the step happened, both 0-dim and on the device.
    """
    scaler.unscale_(optimizer)
    parameters = list(parameters)
    if clip_norm is None:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    else:
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    finite = norm.isfinite()
    if loss is not None:
        finite = finite & loss.detach().isfinite()
    finite = distributed.on_all_ranks(finite)
    if scaler.is_enabled():
        if finite:
            scaler.step(optimizer)
        scaler.update()
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        vars(optimizer)["found_inf"] = (~finite).float()  # where GradScaler puts it, too
        optimizer.step()
        vars(optimizer)["found_inf"] = None
    elif finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on ``device`` (asynchronously from pinned memory); the rest as it is."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, Mapping):
            return {k: move(v) for k, v in value.items()}
        return value

    return {key: move(value) for key, value in batch.items()}
