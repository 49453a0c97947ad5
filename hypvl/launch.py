"""The processes of a run: their start, alone, by this program or by torchrun, and what their end means."""

import contextlib
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hypvl.distributed import barrier
from hypvl.errors import ConfigError, StoppedError, UserError

# Seconds for the other processes when one has ended: to leave, then to hear SIGTERM, before SIGKILL.
_GRACE = 5.0


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
        barrier()
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
    backend = "nccl" if on_gpu else "gloo"
    if (store := agent_store(timeout)) is None:
        dist.init_process_group(backend, timeout=timeout)
    else:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        own = _of_this_try(store, rank=rank, world=world, timeout=timeout)
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=timeout)
    try:
        return main(*args)
    finally:
        dist.destroy_process_group()


def agent_store(timeout: timedelta = timedelta(minutes=5)) -> dist.Store | None:
    """The store that torchrun's agent keeps for its ranks, which holds what earlier tries of them wrote; else None.

    It ends with the agent. A new client each time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    return dist.PrefixStore("hypvl", store)


def _of_this_try(store: dist.Store, *, rank: int, world: int, timeout: timedelta) -> dist.Store:
    """The part of the agent's store that only the ranks of this try use: no key of an earlier one is in their way.

    TORCHELASTIC_RESTART_COUNT does not name a try: an agent whose own ranks have not failed restarts them uncounted,
    so that the agents of two machines disagree. Here rank 0 draws a name. Each other rank asks for it with a number
    that it has drawn itself, so that no answer of an earlier try is taken; rank 0 goes on until all have heard.
    """
    own = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks/{rank}", own)
        store.wait([f"answer/{own}"], timeout)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{rank}", "")
        return dist.PrefixStore(name, store)
    waiting, deadline = set(range(1, world)), time.monotonic() + timeout.total_seconds()
    while waiting:
        for other in sorted(waiting):
            if store.check([f"heard/{own}/{other}"]):
                waiting.remove(other)
            elif store.check([f"asks/{other}"]):
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise UserError(
                f"torchrun: ranks {', '.join(map(str, sorted(waiting)))} have not come within "
                f"{timeout.total_seconds():.0f} s; look at the log of their machine."
            )
        time.sleep(0.02)
    return dist.PrefixStore(own, store)


def begun_by_this_agent(folder: Path) -> bool:
    """Whether ranks of this torchrun noted the folder by :func:`note_begun`, in this try or an earlier one."""
    store = agent_store()
    return store is not None and bool(store.check([_key(folder)]))


def note_begun(folder: Path) -> None:
    """Remember, as long as torchrun lives, that its ranks began a run in this folder; does nothing without it."""
    if (store := agent_store()) is not None:
        store.set(_key(folder), "")


def _key(folder: Path) -> str:
    return f"begun/{folder.resolve()}"
