"""Collectives over the process group. Every function is a no-op (one process, rank 0) without one."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hypvl import rank_notes
from hypvl.errors import UserError

T = TypeVar("T")


def is_initialized() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all, 0 without a process group."""
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums each rank's gradient for our rows (reduce-scatter)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        if dist.get_backend() == "nccl":
            own = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
            dist.reduce_scatter_tensor(own, grad)
            return own
        grad = grad.clone()  # gloo: the sum of everything, then our rows
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]


def gather(x: Tensor) -> Tensor:
    """Rows of every rank, in rank order; differentiable.

    Args:
        x: (B, ...), the same shape on every rank.

    Returns:
        (W * B, ...). The backward pass sums over ranks, so that with gradients averaged over ranks (DDP)
        the mean over ranks of a loss on gathered rows has the gradient of the one-process loss.
    """
    if world_size() == 1:
        return x
    # Traced by Dynamo (torch 2.11), the collective passes no gradient back, and says nothing.
    return _outside_graphs()(x) if torch.compiler.is_compiling() else _Gather.apply(x)


def row_counts(count: int) -> list[int]:
    """How many rows each rank has, in rank order (a collective on the host, which no device is waited for)."""
    if world_size() == 1:
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = count
    dist.all_reduce(counts, group=_host_group_of(dist.group.WORLD))
    return [int(number) for number in counts]


def gather_rows(x: Tensor, counts: Sequence[int]) -> Tensor:
    """As :func:`gather`, of any number of rows on each rank, also none.

    Args:
        x: (M, ...), M = ``counts[rank]``.
        counts: Rows of each rank, the same list on all: that of :func:`row_counts`.

    Returns:
        (sum of counts, ...). For the collective, rows of zeros fill up what a rank has fewer than another; they are
        dropped after it.
    """
    if world_size() == 1 or max(counts) == 0:
        return x
    if min(counts) == max(counts):
        return gather(x)
    filler = x.new_zeros((max(counts) - len(x), *x.shape[1:]))
    blocks = gather(torch.cat([x, filler])).split(max(counts))
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])


def pass_on(tensors: Sequence[Tensor], *, rows: int) -> Callable[[], list[Tensor]]:
    """Send tensors to the next rank and receive those of the rank before, in a ring; every rank calls it.

    All sends and receives are posted together, so that no rank waits for another to begin (gloo, NCCL).

    Args:
        tensors: Contiguous, (M, ...) each, with the same M; not changed until the result was asked for.
        rows: M of the rank before. Where it is 0 nothing travels.

    Returns:
        A function that waits for what was received, (rows, ...) each.
    """
    if world_size() == 1:
        return lambda: list(tensors)
    to, by = (rank() + 1) % world_size(), (rank() - 1) % world_size()
    received = [x.new_empty((rows, *x.shape[1:])) for x in tensors]
    operations = [dist.P2POp(dist.isend, x, to) for x in tensors if len(x)]
    operations += [dist.P2POp(dist.irecv, x, by) for x in received if rows]
    requests = dist.batch_isend_irecv(operations) if operations else []

    def wait() -> list[Tensor]:
        for request in requests:
            request.wait()
        return received

    return wait


@functools.cache
def _host_group_of(world: dist.ProcessGroup) -> dist.ProcessGroup | None:
    return host_group()  # one for each default group: a program may end one and begin another


@functools.cache
def _outside_graphs() -> Callable[[Tensor], Tensor]:
    return torch.compiler.disable(_Gather.apply)  # imports Dynamo: only where it is there already


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,) and biased variance (D,) of the rows of all ranks, differentiable, and their number, 0-dim.

    Each rank has (B, D) rows, any number. Ranks exchange 3 D numbers each, in one gather, and nothing waits for the
    device; the variance is that about the common mean (no difference of large squares). All are 0 where no rank has
    rows.
    """
    mean = x.mean(0) if len(x) else x.sum(0)
    variance = (x - mean).square().mean(0) if len(x) else x.square().sum(0)
    parts = gather(torch.stack((mean, variance, torch.full_like(mean, len(x))))[None])  # (W, 3, D)
    means, variances, counts = parts.unbind(1)  # (W, D) each
    total = counts.sum(0)  # (D,)
    shares = counts / total.clamp(min=1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), total[0]


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over ranks, without gradient (in one process: ``x`` itself, detached)."""
    return all_reduce_sum(x) / world_size() if world_size() > 1 else x.detach()


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of ``x`` over ranks, without gradient (in one process: ``x`` itself, detached)."""
    x = x.detach()
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def on_all_ranks(flag: Tensor) -> Tensor:
    """Whether a flag, or each of several, is true on every rank (a collective on the device; nothing waits for it)."""
    if world_size() == 1:
        return flag
    everywhere = flag.to(torch.uint8)
    dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
    return everywhere.bool()


@torch.no_grad()
def all_reduce_mean_(
    tensors: Iterable[Tensor], *, wire: torch.dtype | None = None, bucket_bytes: int = 32 << 20
) -> None:
    """Replace each tensor by its mean over ranks, in place: a few large messages instead of many small ones.

    Args:
        tensors: Of the same shapes and in the same order on every rank.
        wire: Send (and sum) numbers of this dtype instead of their own.
        bucket_bytes: Largest message; a larger tensor goes alone.
    """
    if world_size() == 1:
        return
    buckets: dict[torch.dtype, list[Tensor]] = {}

    def average(bucket: list[Tensor]) -> None:
        flat = torch.cat([x.reshape(-1) for x in bucket])
        sent = flat.to(wire if wire is not None else flat.dtype) / world_size()
        dist.all_reduce(sent)
        for x, part in zip(bucket, sent.split([x.numel() for x in bucket]), strict=True):
            x.copy_(part.view(x.shape))
        bucket.clear()

    for x in tensors:
        bucket = buckets.setdefault(x.dtype, [])
        if bucket and sum(y.nbytes for y in bucket) + x.nbytes > bucket_bytes:
            average(bucket)
        bucket.append(x)
    for bucket in buckets.values():
        average(bucket)


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Give each tensor the values that rank 0 has, in place; shapes and order as in :func:`all_reduce_mean_`."""
    for x in tensors if world_size() > 1 else ():
        sent = x.contiguous()
        dist.broadcast(sent, src=0)
        x.copy_(sent)


def host_group() -> dist.ProcessGroup | None:
    """A group whose messages are CPU tensors, so that a GPU need not be waited for (a collective).

    The default group under gloo, a new one otherwise; None without a process group.
    """
    if not is_initialized():
        return None
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    assert dist.group.WORLD is not None
    own = dist.group.WORLD._get_backend(torch.device("cuda")).options
    return dist.new_group(
        backend="gloo", timeout=own._timeout
    )  # its default is not that of the default group


def any_rank(flags: Sequence[bool], *, group: dist.ProcessGroup | None) -> list[bool]:
    """Whether each flag is set on any rank; ``group`` comes from :func:`host_group`."""
    if world_size() == 1:
        return list(flags)
    result = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(result, op=dist.ReduceOp.MAX, group=group)
    return [bool(flag) for flag in result.tolist()]


def broadcast_object(value: Any) -> Any:
    """The value that rank 0 has (picklable)."""
    if world_size() > 1:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
    return value


def from_main(function: Callable[[], T]) -> T:
    """What ``function`` returns on rank 0, which alone calls it, or its UserError, on every rank (picklable).

    The other ranks wait as long as rank 0 works; ``train.timeout_s`` is for a rank 0 that does nothing.
    """
    result: T | None = None
    raised: UserError | None = None
    notes = rank_notes.current() if world_size() > 1 else None
    if is_main():
        try:
            result = function()
        except UserError as error:
            raised = error
        if notes is not None:
            notes.tell_done()
    elif notes is not None:
        notes.wait_for_main()
    result, raised = broadcast_object((result, raised))
    if raised is not None:
        raise raised
    return cast(T, result)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value (picklable), in rank order, on every rank."""
    if world_size() > 1:
        box: list[Any] = [None] * world_size()
        dist.all_gather_object(box, value)
        return box
    return [value]


def device() -> torch.device:
    """The device of this process: its local GPU when it was launched on GPUs, the CPU otherwise."""
    if is_initialized():
        uses_gpu = dist.get_backend() == "nccl"
    else:
        uses_gpu = torch.cuda.is_available() and os.environ.get("HYPVL_DEVICE", "cuda") != "cpu"
    return torch.device("cuda", torch.cuda.current_device()) if uses_gpu else torch.device("cpu")
