"""One training step: its precision, forward and backward, gradients averaged and clipped, the optimizer's step."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.losses.base import LossOutput, PairContext
from hypvl.training.config import Amp


@dataclass(frozen=True)
class Precision:
    """Mixed precision of a run.

    Args:
        dtype: torch.bfloat16, torch.float16, or None for full precision.
        device: Where the model lives.
    """

    dtype: torch.dtype | None
    device: torch.device

    @classmethod
    def choose(cls, amp: Amp, device: torch.device) -> "Precision":
        """The precision for a value of ``train.amp``.

        Args:
            amp: "bf16", "fp16", "fp32" (the same as False), or "auto": bf16 where the hardware has it, else fp16
                on a GPU and full precision on a CPU.
            device: Where the model lives.

        Raises:
            ConfigError: for another value.
        """
        if amp == "auto":
            if device.type == "cuda":
                native = torch.cuda.is_bf16_supported(including_emulation=False)
                return cls(torch.bfloat16 if native else torch.float16, device)
            return cls(torch.bfloat16 if _cpu_has_bf16() else None, device)
        choices: dict[Any, torch.dtype | None] = {"bf16": torch.bfloat16, "fp16": torch.float16}
        choices |= {"fp32": None, False: None}
        if amp not in choices:
            raise ConfigError(f"train.amp: got {amp!r}; expected 'auto', 'bf16', 'fp16', 'fp32' or false.")
        return cls(choices[amp], device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context for the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def wire(self, *, compress: bool) -> torch.dtype | None:
        """The dtype in which gradients travel between GPUs; None = their own.

        It is that of the forward pass. Gradients of bf16 never travel in fp16: without a loss scale their small
        entries would be lost in its range.

        Args:
            compress: Whether to send 16 bits; on CPUs, and in full precision, they are never used.
        """
        return self.dtype if compress and self.device.type == "cuda" else None

    def make_scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler; does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


class GradientAverage:
    """Mean over ranks of the gradients, as DDP gives it, for steps of several backward passes.

    Called once per step, after the last backward pass.

    Args:
        wire: Send gradients in this dtype (torch.float16 halves the traffic); None = as they are.
    """

    def __init__(self, *, wire: torch.dtype | None = None) -> None:
        self.wire = wire
        self._group: torch.distributed.ProcessGroup | None = None

    @torch.no_grad()
    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Average ``.grad`` in place (a collective; nothing happens in one process).

        A parameter that has a gradient on some ranks only counts as 0 on the others and has one on all of them
        afterwards; one that has none anywhere keeps none, so that no optimizer moves it.

        Args:
            parameters: The same ones in the same order on every rank.
        """
        if distributed.world_size() == 1:
            return
        if self._group is None:
            self._group = distributed.host_group()
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        used = distributed.any_rank([p.grad is not None for p in trainable], group=self._group)
        gradients = []
        for parameter, somewhere in zip(trainable, used, strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        distributed.all_reduce_mean_(gradients, wire=self.wire)


def forward_backward(
    learner: nn.Module,
    batch: Mapping[str, Any],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    cache: Callable[..., tuple[LossOutput, PairContext]] | None = None,
) -> tuple[LossOutput, PairContext]:
    """Loss of the batch and its gradients, added into ``.grad``.

    Args:
        learner: A :class:`~hypvl.training.learner.Learner`, possibly wrapped by DDP.
        batch: Local batch on the model's device.
        precision: Precision of the forward pass.
        scaler: Scales the loss in fp16.
        cache: A :class:`~hypvl.training.grad_cache.GradCache`, which encodes in micro-batches with the same result;
            gradients are then averaged over ranks also without DDP.

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
    """Unscale, clip and step, then clear the gradients; a step that is not finite is skipped (a collective).

    The ranks agree: when the loss or a gradient is not finite on one of them, weights, moments and step counts stay as
    they are on all of them. Fused optimizers skip on the device, and nothing waits for it; with others and in fp16 the
    host reads first whether to skip.

    Args:
        optimizer: The optimizer.
        parameters: Their gradient norm is measured and clipped.
        scaler: The run's scaler; overflow lowers its scale.
        clip_norm: Largest allowed norm of all gradients together; None = only measured.
        loss: This rank's loss, 0-dim.

    Returns:
        The gradient norm before clipping, and False for a skipped step; both 0-dim and on the device.
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
    else:
        vars(optimizer)["_opt_called"] = True  # or schedules warn of a step before the optimizer's first one
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


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
