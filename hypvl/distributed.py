"""Processes and collectives. Every function is a no-op (one process, rank 0) without a process group."""

import contextlib
import functools
import os
import pickle
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hypvl.errors import ConfigError, StoppedError, UserError

T = TypeVar("T")
# Seconds for the other processes when one has ended: to leave, then to hear SIGTERM, before SIGKILL.
_GRACE = 5.0


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
    """Whether a 0-dim flag is true on every rank (a collective on the flag's device, which nothing waits for)."""
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
    return dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


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
    """What ``function`` returns on rank 0, which alone calls it, or its UserError, on every rank (picklable)."""
    result: T | None = None
    raised: UserError | None = None
    if is_main():
        try:
            result = function()
        except UserError as error:
            raised = error
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


def launch(
    main: Callable[..., Any],
    *args: Any,
    num_gpus: int | None = None,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    timeout: timedelta = timedelta(minutes=30),
) -> Any:
    """Run ``main(*args)`` once per process.

    Under ``torchrun`` (its environment variables are set) this process is one of them. Otherwise ``num_gpus`` processes
    are started on this machine, one per GPU with NCCL; ``num_gpus=0`` is one CPU process (gloo with several machines).

    Args:
        main: A function that can be pickled.
        num_gpus: GPUs to use on this machine; None = all that are visible.
        num_machines: Machines that take part; each runs this command with its own ``machine_rank``.
        machine_rank: 0 ... num_machines - 1.
        dist_url: ``tcp://host:port`` of machine 0; found by itself on a single machine.

    Returns:
        What ``main`` returns when it runs in this process, else None.

    Raises:
        ConfigError: for numbers that do not fit this machine.
    """
    for flag, value, least in (("--num-gpus", num_gpus, 0), ("--num-machines", num_machines, 1)):
        if value is not None and value < least:
            raise ConfigError(f"{flag}: got {value}; expected {least} or more.")
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank: got {machine_rank}; expected 0 to {num_machines - 1} for --num-machines {num_machines}."
        )
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus is None:
        num_gpus = available
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _run_under_torchrun(main, args, num_gpus, timeout)
    if num_gpus > available:
        raise ConfigError(
            f"--num-gpus: got {num_gpus}, but this machine has {available} usable GPU(s); "
            "use --num-gpus 0 to train on the CPU."
        )
    per_machine = max(1, num_gpus)
    world = per_machine * num_machines
    if world == 1:
        os.environ["HYPVL_DEVICE"] = "cuda" if num_gpus else "cpu"
        return main(*args)
    if num_machines > 1 and dist_url is None:
        raise ConfigError("--dist-url: missing; with several machines give tcp://<host of machine 0>:<port>.")
    if dist_url is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dist_url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "error"
        first_rank = machine_rank * per_machine
        place = (world, first_rank, dist_url, num_gpus > 0, timeout, report)
        started: list[int] = []
        try:
            with _forwarding(started):
                context = torch.multiprocessing.spawn(
                    _worker, args=(main, args, *place), nprocs=per_machine, join=False
                )
                started += context.pids()
                while not context.join(grace_period=_GRACE):
                    pass
        except (
            torch.multiprocessing.ProcessRaisedException,
            torch.multiprocessing.ProcessExitedException,
        ) as error:
            if report.is_file():  # what a user can act on, said once and without the worker's traceback
                raise pickle.loads(report.read_bytes()) from None  # written by our own worker
            if isinstance(error, torch.multiprocessing.ProcessExitedException):
                raise _ended(error, first_rank=first_rank) from None
            raise
    return None


@contextlib.contextmanager
def _forwarding(processes: Iterable[int]) -> Iterator[None]:
    """Pass on to the processes what this one is asked, which has nothing to save itself."""

    def forward(number: int, _: object) -> None:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    catches = threading.current_thread() is threading.main_thread()  # no other one may
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) if catches else ()
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ended(error: torch.multiprocessing.ProcessExitedException, *, first_rank: int) -> UserError:
    """What the end of a process means, in a sentence."""
    rank, code = first_rank + error.error_index, error.exit_code
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):  # asked twice, it has left at once
        return StoppedError(f"rank {rank} left at once when it was asked to stop a second time.", code)
    how = f"was ended by {error.signal_name}" if error.signal_name else f"ended with exit code {code}"
    return UserError(
        f"rank {rank} (process {error.error_pid}) {how}, and the others with it; look for what ended it (SIGKILL: most "
        "often the memory was full), then go on with --resume."
    )


def _worker(
    local: int,
    main: Callable[..., Any],
    args: tuple[Any, ...],
    world: int,
    first_rank: int,
    url: str,
    on_gpu: bool,
    timeout: timedelta,
    report: Path,
) -> None:
    if on_gpu:
        torch.cuda.set_device(local)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(
        backend, init_method=url, rank=first_rank + local, world_size=world, timeout=timeout
    )
    try:
        main(*args)
        dist.barrier()
    except UserError as error:
        temporary = report.with_name(f"error-{first_rank + local}")
        temporary.write_bytes(pickle.dumps(error))
        temporary.replace(report)
        raise
    finally:
        dist.destroy_process_group()


def _run_under_torchrun(
    main: Callable[..., Any], args: tuple[Any, ...], num_gpus: int, timeout: timedelta
) -> Any:
    local = int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = num_gpus > 0 and torch.cuda.is_available()
    if on_gpu:
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun: local rank {local} has no GPU, this machine has {torch.cuda.device_count()}; "
                "lower --nproc-per-node or pass --num-gpus 0."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    try:
        return main(*args)
    finally:
        dist.destroy_process_group()
