"""Gradient caching: the gradients of the whole batch in the memory of a micro-batch.

A loss that compares every sample with every other one needs the embeddings of all of them at once, but an encoder's
activations only while its own rows pass through it. So each trunk runs twice: first without a graph over the whole
batch, and again in micro-batches once the gradients of its outputs are known.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.losses.base import LossOutput, PairContext, View
from hypvl.training.averaging import GradientAverage
from hypvl.training.generators import rng_state, set_rng_state
from hypvl.training.learner import Learner, Rows, rows_of
from hypvl.training.precision import Precision
from hypvl.training.row_checks import refuse_batch_statistics, refuse_coupled_rows, refuse_other_features


@dataclass(frozen=True)
class _Remembered:
    """One view after the first pass.

    Args:
        inputs: Its micro-batches.
        states: The generators before each of them.
        trunk: Features of the whole local batch, (rows, width): a leaf of the graph.
    """

    inputs: list[Rows]
    states: list[tuple[Tensor, Tensor | None]]
    trunk: Tensor


class GradCache:
    """Forward and backward of a step in three passes, equal to the direct one.

    1. Every view's trunk over the whole local batch, a micro-batch at a time, without a graph; the state of the random
       generators before each micro-batch is kept.
    2. Heads, geometry and loss terms on all of it, and backward to the trunks' outputs: batch statistics in heads,
       keys of all ranks and every parameter after the trunks are as in the direct step.
    3. Every micro-batch again with its random numbers, now with a graph, and backward from the kept gradients.

    Then gradients are averaged over ranks, once. Time: one more forward pass of the trunks, so about 4/3 of the direct
    step. Memory: the activations of one micro-batch of one view, and what is kept of a row (its inputs and outputs).

    Trunks whose rows depend on each other are refused, as are those that keep something from one call to the next;
    the first step looks for both (see :mod:`hypvl.training.row_checks`). With dropout a row draws other numbers than in
    the direct step, unless the micro-batch is the batch: of the same distribution, and the same ones in passes 1 and 3.

    Args:
        micro_batch: Rows of a view that are encoded at once, at least 1.
        average: Takes the mean over ranks of the gradients.

    Raises:
        ValueError: for a micro-batch below 1.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
        (arXiv 2101.06983).
    Differs: cut at the trunks, not at the embeddings, so that heads with batch statistics see the whole batch.
    """

    def __init__(self, micro_batch: int, *, average: GradientAverage | None = None) -> None:
        if micro_batch < 1:
            raise ValueError(f"micro_batch: got {micro_batch}; expected at least 1.")
        self.micro_batch = micro_batch
        self.average = average if average is not None else GradientAverage()
        self._checked = False

    def __call__(
        self,
        module: nn.Module,
        batch: Mapping[str, Any],
        *,
        precision: "Precision",
        scaler: torch.amp.GradScaler,
    ) -> tuple[LossOutput, PairContext]:
        """Loss of the batch and its gradients, added into ``.grad``; arguments as for ``forward_backward``."""
        learner = learner_of(module)
        first = not self._checked
        if first:
            self._check(learner, batch, precision=precision)
        with precision.autocast(), torch.no_grad():
            remembered = {view: self._remember(learner, view, batch) for view in learner.views}
        with precision.autocast():
            output, ctx = learner.judge({view: kept.trunk for view, kept in remembered.items()}, batch)
        scaler.scale(output.total).backward()
        with _forked(precision.device):
            for view, kept in remembered.items():
                if kept.trunk.grad is not None:  # frozen, or nothing looked at it
                    self._again(learner, view, kept, precision=precision, check=first)
        self.average(learner.parameters())
        self._checked = True
        return output, ctx

    def _check(self, learner: Learner, batch: Mapping[str, Any], *, precision: "Precision") -> None:
        refuse_batch_statistics(learner)
        with _forked(precision.device), precision.autocast():
            for view in learner.views:
                refuse_coupled_rows(learner, view, rows_of(view, batch))

    def _remember(self, learner: Learner, view: View, batch: Mapping[str, Any]) -> _Remembered:
        inputs = rows_of(view, batch).split(self.micro_batch)
        states, parts = [], []
        for rows in inputs:
            states.append(rng_state(rows.values.device))
            parts.append(learner.trunk(view, rows))
        trained = view.grad and any(p.requires_grad for p in learner.encoder(view).parameters())
        return _Remembered(inputs, states, torch.cat(parts).requires_grad_(trained))

    def _again(
        self, learner: Learner, view: View, kept: _Remembered, *, precision: "Precision", check: bool
    ) -> None:
        assert kept.trunk.grad is not None
        features, gradients = kept.trunk.split(self.micro_batch), kept.trunk.grad.split(self.micro_batch)
        for rows, state, before, gradient in zip(kept.inputs, kept.states, features, gradients, strict=True):
            set_rng_state(state, rows.values.device)
            with precision.autocast():
                trunk = learner.trunk(view, rows)
                if check:
                    refuse_other_features(learner, view, before, trunk)
            if trunk.requires_grad:
                trunk.backward(gradient)


def learner_of(module: nn.Module) -> Learner:
    """The learner itself, out of DDP.

    Raises:
        TypeError: for another module.
    """
    if isinstance(module, nn.parallel.DistributedDataParallel):
        module = module.module
    if not isinstance(module, Learner):
        raise TypeError(f"module: got {type(module).__name__}; expected a Learner, or DDP around one.")
    return module


def _forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context after which the generators are as they were before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
