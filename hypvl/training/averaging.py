"""Gradients averaged over ranks after the backward pass, where DDP is not in the way of one that comes in parts."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hypvl import distributed


class GradientAverage:
    """Mean over ranks of the gradients, taken once per step: what DDP leaves behind, without its reducer.

    A step whose gradients come from several backward passes calls it after the last one.

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
