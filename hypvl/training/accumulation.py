"""Steps of several backward passes: gradient caching, and naive accumulation."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from hypvl import distributed
from hypvl.checks import whole_number
from hypvl.errors import ConfigError
from hypvl.losses.base import STUDENT, LossOutput, PairContext, View
from hypvl.training.parallel import is_sharded
from hypvl.training.step import Learner, Precision, Rows

# Largest relative difference that counts as rounding (other kernels, packed texts); batch statistics of two rows
# differ by far more.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
_ROUNDING_16_BIT = 5e-2
_ADVICE = (
    "use an encoder whose norms see one row at a time (LayerNorm, GroupNorm, frozen batch norms), or leave "
    "train.grad_cache.micro_batch at null and train.accumulate at 1."
)


class GradientAverage:
    """Mean over ranks of the gradients, as DDP gives it, for steps of several backward passes.

    They are sent in the dtype ``wire`` (torch.float16 halves the traffic); None = as they are.
    """

    def __init__(self, *, wire: torch.dtype | None = None) -> None:
        self.wire = wire
        self._group: torch.distributed.ProcessGroup | None = None

    @torch.no_grad()
    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Average ``.grad`` in place (a collective; nothing happens in one process).

        A parameter that has a gradient on some ranks only counts as 0 on the others and has one on all of them
        afterwards; one that has none anywhere keeps none, so that no optimizer moves it. Every rank gives the same
        parameters in the same order.
        """
        if distributed.world_size() == 1:
            return
        if self._group is None:
            self._group = distributed.host_group()
        trainable = [
            p for p in parameters if p.requires_grad and not is_sharded(p)
        ]  # of shards FSDP has done it
        used = distributed.any_rank([p.grad is not None for p in trainable], group=self._group)
        gradients = []
        for parameter, somewhere in zip(trainable, used, strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        distributed.all_reduce_mean_(gradients, wire=self.wire)


def naive_forward_backward(
    learner: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    parts: int,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    average: GradientAverage,
) -> tuple[LossOutput, list[PairContext]]:
    """Mean of the losses of ``parts`` local batches, each on its own, and its gradients, added into ``.grad``.

    A term that compares samples with each other sees those of one part only: for contrastive losses this is another
    objective than that of the joined batch, with fewer negatives. The :class:`~hypvl.training.step.Learner` is not
    wrapped by DDP: ``average`` takes the mean over ranks of the gradients, once.

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


@dataclass(frozen=True)
class _FirstPass:
    """One view after the first pass."""

    inputs: list[Rows]  # its micro-batches
    states: list[tuple[Tensor, Tensor | None]]  # of the generators before each of them
    trunk: Tensor  # features of the whole local batch, (rows, width): a leaf of the graph


class GradCache:
    """Forward and backward of a step in three passes, equal to the direct one, in the memory of a micro-batch.

    A loss that compares every sample with every other one needs the embeddings of all of them at once, but an encoder's
    activations only while its own rows pass through it:

    1. Every view's trunk over the whole local batch, a micro-batch at a time, without a graph; the state of the random
       generators before each micro-batch is kept.
    2. Heads, geometry and loss terms on all of it, and backward to the trunks' outputs: batch statistics in heads,
       keys of all ranks and every parameter after the trunks are as in the direct step.
    3. Every micro-batch again with its random numbers, now with a graph, and backward from the kept gradients.

    Then gradients are averaged over ranks, once. Time: one more forward pass of the trunks, so about 4/3 of the direct
    step. Memory: the activations of one micro-batch of one view, and inputs and outputs of every row.

    Trunks whose rows depend on each other are refused, as are those that keep something from one call to the next:
    the first step looks for both. With dropout a row draws other numbers than in the direct step, unless the
    micro-batch is the batch; they are of the same distribution, and the same ones in passes 1 and 3.

    Args:
        micro_batch: Rows of a view that are encoded at once, at least 1.
        average: Takes the mean over ranks of the gradients.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
        (arXiv 2101.06983).
    Differs: cut at the trunks, not at the embeddings, so that heads with batch statistics see the whole batch.
    """

    def __init__(self, micro_batch: int, *, average: GradientAverage | None = None) -> None:
        self.micro_batch = whole_number("micro_batch", micro_batch, least=1)
        self.average = average if average is not None else GradientAverage()
        self._checked = False

    def __call__(
        self,
        module: nn.Module,
        batch: Mapping[str, Any],
        *,
        precision: Precision,
        scaler: torch.amp.GradScaler,
    ) -> tuple[LossOutput, PairContext]:
        """Loss of the batch and its gradients, added into ``.grad``; arguments as for ``forward_backward``."""
        learner = module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
        if not isinstance(learner, Learner):
            raise TypeError(f"module: got {type(learner).__name__}; expected a Learner, or DDP around one.")
        check, learner_is_sharded = not self._checked, any(map(is_sharded, learner.parameters()))
        if check:
            check_no_batch_statistics(learner)
            with _forked(precision.device), precision.autocast():
                for view in learner.views:
                    rows = learner.rows(view, batch)
                    if learner_is_sharded and min(distributed.row_counts(len(rows.values))) < 2:
                        continue  # every rank gathers the weights, or none
                    _check_rows_independent(learner, view, rows)
        with precision.autocast(), torch.no_grad():
            passes = {
                view: self._first(learner, view, batch, sharded=learner_is_sharded) for view in learner.views
            }
        with precision.autocast():
            output, ctx = learner.loss_from_trunks(
                {view: first_pass.trunk for view, first_pass in passes.items()}, batch
            )
        scaler.scale(output.total).backward()
        with _forked(precision.device):
            for view, first_pass in passes.items():
                if _has_gradient(first_pass, sharded=learner_is_sharded):  # else frozen, or no term uses it
                    self._again(learner, view, first_pass, precision=precision, check=check)
        self.average(learner.parameters())
        self._checked = True
        return output, ctx

    def _first(self, learner: Learner, view: View, batch: Mapping[str, Any], *, sharded: bool) -> _FirstPass:
        rows = learner.rows(view, batch)
        inputs = rows.split(self.micro_batch)
        if sharded:  # every rank gathers the weights equally often
            inputs += [rows[:0]] * (max(distributed.row_counts(len(inputs))) - len(inputs))
        states, parts = [], []
        for rows in inputs:
            states.append(_rng_state(rows.values.device))
            parts.append(learner.trunk(view, rows))
        trained = learner.has_gradient(view) and any(
            p.requires_grad for p in learner.encoder(view).parameters()
        )
        return _FirstPass(inputs, states, torch.cat(parts).requires_grad_(trained))

    def _again(
        self, learner: Learner, view: View, first_pass: _FirstPass, *, precision: Precision, check: bool
    ) -> None:
        trunk_grad = first_pass.trunk.grad
        assert trunk_grad is not None
        sizes = [len(rows.values) for rows in first_pass.inputs]
        features, gradients = first_pass.trunk.split(sizes), trunk_grad.split(sizes)
        parts = zip(first_pass.inputs, first_pass.states, features, gradients, strict=True)
        for rows, state, before, gradient in parts:
            _set_rng_state(state, rows.values.device)
            with precision.autocast():
                trunk = learner.trunk(view, rows)
                if check:
                    _check_repeatable(learner, view, before, trunk)
            if trunk.requires_grad:
                trunk.backward(gradient)


def _has_gradient(first_pass: _FirstPass, *, sharded: bool) -> bool:
    """Whether a view is to be encoded again; of a sharded encoder all ranks do so, or none."""
    trunk = first_pass.trunk
    if not sharded:
        return trunk.grad is not None
    somewhere = max(distributed.row_counts(int(trunk.grad is not None))) > 0
    if somewhere and trunk.grad is None:
        trunk.grad = torch.zeros_like(trunk)
    return somewhere


def _forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context after which the generators are as they were before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def check_no_batch_statistics(learner: Learner) -> None:
    """Refuse trunks (in the mode they are trained in) with norms that use or update statistics of the batch.

    Heads may have them: they see the whole batch, once.

    Raises:
        ConfigError: naming the module.
    """
    for view in learner.views:
        for name, module in learner.encoder(view).named_modules():
            of_batch = isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
            moving = isinstance(module, _InstanceNorm) and module.training and module.track_running_stats
            if of_batch or moving:
                path = f"{_path(view)}.{name}".rstrip(".")
                raise ConfigError(
                    f"train.grad_cache.micro_batch: {path} is a {type(module).__name__}, whose statistics would be "
                    f"those of a micro-batch or change twice per step; {_ADVICE}"
                )


@torch.no_grad()
def _check_rows_independent(learner: Learner, view: View, rows: Rows) -> None:
    """Refuse a trunk in which the features of one row change with another row, or that changes its buffers.

    Dropout is off, which draws for tokens in an order that depends on their rows; other random numbers are the same
    both times. Fewer than two rows show nothing.
    """
    if len(rows.values) < 2:
        return
    encoder, path = learner.encoder(view), _path(view)
    device = rows.values.device
    state = _rng_state(device)
    dropouts = [m for m in encoder.modules() if isinstance(m, nn.Dropout) and m.training]
    for dropout in dropouts:
        dropout.eval()
    one = learner.trunk(view, rows[[0, -1]])[0]
    before = {key: (id(buffer), buffer._version) for key, buffer in encoder.named_buffers()}
    _set_rng_state(state, device)
    other = learner.trunk(view, rows[[0, 0]])[0]
    for dropout in dropouts:
        dropout.train()
    for key, buffer in encoder.named_buffers():
        if before.get(key) != (id(buffer), buffer._version):
            raise ConfigError(
                f"train.grad_cache.micro_batch: {path}.{key} changes whenever {path} encodes, which "
                f"here happens twice per step and in parts; {_ADVICE}"
            )
    if _differ(one, other):
        raise ConfigError(
            f"train.grad_cache.micro_batch: in {path} ({type(encoder).__name__}) the features of a row depend "
            f"on the other rows, so micro-batches would change them; {_ADVICE}"
        )


def _check_repeatable(learner: Learner, view: View, first: Tensor, again: Tensor) -> None:
    """Refuse a trunk that gave other features when it was run again on the same rows and random numbers."""
    if _differ(first, again):
        raise ConfigError(
            f"train.grad_cache.micro_batch: {_path(view)} ({type(learner.encoder(view)).__name__}) gave other features "
            "when it encoded the same rows a second time, so gradients would be wrong; it may draw from torch's "
            "generators only and keep nothing from one call to the next."
        )


def _path(view: View) -> str:
    """The encoder of a view in a config."""
    model = "model" if view.encoder == STUDENT else f"train.teachers.{view.encoder}"
    return f"{model}.visual" if view.modality == "image" else f"{model}.textual"


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether features differ by more than rounding (waits for the device). NaN does not count as a difference."""
    if not a.numel():
        return False
    limit = _ROUNDING.get(a.dtype, _ROUNDING_16_BIT)
    if torch.is_autocast_enabled(a.device.type):
        limit = _ROUNDING_16_BIT
    a, b = a.detach(), b.detach()
    return bool((a - b).abs().max() > limit * torch.maximum(a.abs().max(), b.abs().max()))


def _rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that a module on ``device`` draws from: the CPU's, and the GPU's where it is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
