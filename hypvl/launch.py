"""The processes of a run: their start, alone, by this program or by torchrun, and what their end means."""

import contextlib
import dataclasses
import multiprocessing.connection
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hypvl.distributed import barrier
from hypvl.errors import ConfigError, StoppedError, UserError
from hypvl.io.processes import hold_save_requests, unless_ignored
from hypvl.rank_notes import RankNote, RankNotes, failed_by_another, noting
from hypvl.units.pool import kill_processes

# Seconds for the other processes when one has ended: to leave, then to hear SIGTERM, before SIGKILL.
_GRACE = 5.0
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
# For all ranks to be there: machines may be given to a job one after the other.
_START = timedelta(minutes=30)


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
        timeout: How long a process waits for the others in a collective.

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
    with (
        tempfile.TemporaryDirectory() as folder,
        _meeting(dist_url, machine_rank, num_machines) as url,
    ):
        place = _Place(
            url=url, first_rank=machine_rank * per_machine, world=world, on_gpu=num_gpus > 0, timeout=timeout,
            reports=Path(folder),
        )  # fmt: skip
        notes = RankNotes(place.store(), rank=None, world=world)
        started: list[int] = []
        try:
            with _forwarding(started) as forward:
                context = torch.multiprocessing.spawn(
                    _worker, args=(main, args, place), nprocs=per_machine, join=False
                )
                started += context.pids()
                forward()
                try:
                    _join(context, notes, first_rank=place.first_rank)
                finally:
                    kill_processes(context.processes)
        except (
            torch.multiprocessing.ProcessRaisedException,
            torch.multiprocessing.ProcessExitedException,
        ) as error:
            raise _cause(error, notes, place) from None
    return None


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the ranks of this machine stand among all."""

    url: str  # of the store, which the launcher of machine 0 keeps: it outlives the ranks
    first_rank: int
    world: int
    on_gpu: bool
    timeout: timedelta
    reports: Path  # a folder for the errors of this machine's ranks

    def store(self) -> dist.Store:
        return _client(self.url)

    def report(self, rank: int) -> Path:
        return self.reports / f"error-{rank}"


def _client(url: str) -> dist.TCPStore:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    try:
        return dist.TCPStore(host.strip("[]"), int(port), is_master=False, timeout=_START)
    except dist.DistError as error:
        raise UserError(
            f"{url}: the launcher of machine 0 has not answered within {_START.total_seconds():.0f} s; start the "
            "command on all machines, with the address of the first in --dist-url."
        ) from error


@contextlib.contextmanager
def _meeting(url: str | None, machine: int, machines: int) -> Iterator[str]:
    """The address of the store of all ranks, kept here on machine 0 until the other launchers have left."""
    if machine != 0:
        assert url is not None
        store: dist.TCPStore = _client(url)
    else:
        host, _, port = (url or "tcp://127.0.0.1:0").removeprefix("tcp://").rpartition(":")
        try:
            store = dist.TCPStore(
                host.strip("[]"), int(port), is_master=True, wait_for_workers=False, timeout=_START
            )
        except dist.DistError as error:
            raise UserError(
                f"--dist-url: port {port} cannot be listened on ({error}); name another."
            ) from error
        url = f"tcp://{host}:{store.port}"
    try:
        yield url
    finally:
        with contextlib.suppress(dist.DistError):
            store.set(f"left/{machine}", "")
            deadline = time.monotonic() + 6 * _GRACE
            others = [f"left/{other}" for other in range(1, machines)]
            while machine == 0 and others and not store.check(others) and time.monotonic() < deadline:
                time.sleep(0.05)


def _join(context: torch.multiprocessing.ProcessContext, notes: RankNotes, *, first_rank: int) -> None:
    """Wait for the ranks of this machine; when any rank ends by an error, on any machine, these end in seconds."""
    own = range(first_rank, first_rank + len(context.processes))
    ended_at: float | None = None
    while True:
        multiprocessing.connection.wait(list(context.sentinels), timeout=1.0)
        for rank, process in zip(own, context.processes, strict=True):
            if process.exitcode not in (None, 0, 1):  # it could not tell so itself
                assert process.pid is not None
                text, stopped = _how(process.exitcode)
                with contextlib.suppress(dist.DistError):  # the store has ended
                    did = "" if (state := notes.state(rank)) is None else state.text
                    notes.add_end(
                        RankNote(rank, socket.gethostname(), process.pid, text, did=did, stopped=stopped)
                    )
        if any(process.exitcode is not None for process in context.processes):
            if context.join(timeout=0.0, grace_period=_GRACE):
                return
        elif ended_at is None and (notes.first_end() is not None or notes.gone):
            ended_at = time.monotonic()
        elif ended_at is not None and time.monotonic() > ended_at + 2 * _GRACE:
            kill_processes(context.processes)  # stuck: stopped, or on a GPU, which does not see others end


def _how(code: int) -> tuple[str, int]:
    """What an exit code of a process says, and the code for who was asked to stop, else 0."""
    stopped = {128 + number: number for number in _STOP}
    if code in stopped:
        return f"left at once when it was asked to stop ({stopped[code].name})", code
    if code >= 0:
        return f"ended with exit code {code}", 0
    number = -code
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    return f"was ended by {name}", 128 + number if 128 + number in stopped else 0


def _cause(error: Exception, notes: RankNotes, place: _Place) -> Exception:
    """Why the ranks ended, as the exception to raise."""
    end = notes.first_end()
    errors = [_unpickled(report) for report in sorted(place.reports.iterdir())]
    if end is None:  # one hangs, and others gave up waiting
        gone = UserError("the launcher of machine 0 has ended, and this machine's ranks with it; look there.")
        return next(iter(errors), gone if notes.gone else error)
    if place.report(end.rank).is_file():  # what a user can act on, without the worker's traceback
        return _unpickled(place.report(end.rank))
    if end.stopped:
        own = (error for error in errors if isinstance(error, StoppedError))
        said = f"{end.sentence}; --resume goes on from the last checkpoint."
        return next(own, StoppedError(said, end.stopped))
    if end.traceback:
        return RuntimeError(f"{end.sentence}\n\n{end.traceback}")
    hint = " (most often the memory was full)" if "SIGKILL" in end.text else ""
    return UserError(f"{end.sentence}, and the others with it{hint}; go on with --resume.")


def _unpickled(report: Path) -> Exception:
    error = pickle.loads(report.read_bytes())  # written by our own worker
    assert isinstance(error, Exception)
    return error


@contextlib.contextmanager
def _forwarding(processes: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Pass on to the processes what this one is asked, which has nothing to save itself.

    Call what is yielded when the processes are there, for what was asked before. Until then SIGUSR2 is blocked, which
    they inherit: it does not end those that do not train yet.
    """
    early: list[int] = []

    def forward(number: int, _: object) -> None:
        if not processes:
            early.append(number)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def forward_early() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        while early:
            forward(early.pop(0), None)

    catches = threading.current_thread() is threading.main_thread()  # no other one may
    numbers = (*unless_ignored(_STOP), signal.SIGUSR2) if catches else ()
    before = hold_save_requests()
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield forward_early
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _worker(local: int, main: Callable[..., Any], args: tuple[Any, ...], place: _Place) -> None:
    if place.on_gpu:
        torch.cuda.set_device(local)
    rank = place.first_rank + local
    try:
        with _group(place.store, rank=rank, world=place.world, on_gpu=place.on_gpu, timeout=place.timeout):
            main(*args)
            barrier()
    except UserError as error:
        place.report(rank).with_suffix(".part").write_bytes(pickle.dumps(error))
        place.report(rank).with_suffix(".part").replace(place.report(rank))
        raise
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None  # torch takes it for an end without an error


@contextlib.contextmanager
def _group(
    store: Callable[[], dist.Store], *, rank: int, world: int, on_gpu: bool, timeout: timedelta
) -> Iterator[None]:
    """The process group, in which each rank tells what it does, and why it ends.

    Args:
        store: Makes a client of the store that the ranks share.
        rank: Of this process.
        world: Number of ranks.
        on_gpu: Whether collectives are of NCCL.
        timeout: Of collectives.

    Raises:
        UserError: in place of a collective's error, naming the rank that made it fail.
    """
    own = store()
    own.set(f"here/{rank}", "")
    own.wait([f"here/{other}" for other in range(world)], _START)  # `timeout` may be shorter
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("group", own),
        rank=rank,
        world_size=world,
        timeout=timeout,
    )
    notes = RankNotes(store(), rank=rank, world=world, timeout=timeout.total_seconds())
    try:
        with noting(notes):
            yield
    except UserError as error:
        stopped = error.exit_code if isinstance(error, StoppedError) else 0
        notes.tell_end(f"ended: {error}", stopped=stopped)
        raise
    except Exception as error:
        if not failed_by_another(error):
            notes.tell_end(f"raised {type(error).__name__}: {error}", traceback=traceback.format_exc())
            raise
        try:
            blame = notes.blame()
        except dist.DistError:
            blame = "the store of the ranks is gone, with the launcher of machine 0 or the agent that kept it"
        if blame is None:
            notes.explained(None)
            raise
        with contextlib.suppress(dist.DistError):
            notes.tell_end(f"waits for the others no longer: {blame}")
        explained = UserError(f"rank {rank} waits for the others no longer: {blame}; go on with --resume.")
        notes.explained(str(explained))
        raise explained from error
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
    if (store := agent_store()) is not None:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        name = _name_of_this_try(store, rank=rank, world=world)

        def client() -> dist.Store:
            agent = agent_store()
            assert agent is not None
            return dist.PrefixStore(name, agent)

        with _group(client, rank=rank, world=world, on_gpu=on_gpu, timeout=timeout):
            return main(*args)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    try:
        return main(*args)
    finally:
        dist.destroy_process_group()


def agent_store() -> dist.Store | None:
    """The store that torchrun's agent keeps for its ranks, which holds what earlier tries of them wrote; else None.

    It ends with the agent. A new client each time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store, _, _ = next(dist.rendezvous("env://", timeout=_START))
    return dist.PrefixStore("hypvl", store)


def _name_of_this_try(store: dist.Store, *, rank: int, world: int) -> str:
    """A prefix in the agent's store that only the ranks of this try use: no key of an earlier one is in their way.

    TORCHELASTIC_RESTART_COUNT does not name a try: an agent whose own ranks have not failed restarts them uncounted,
    so that the agents of two machines disagree. Here rank 0 draws a name. Each other rank asks for it with a number
    that it has drawn itself, so that no answer of an earlier try is taken; rank 0 goes on until all have heard.
    """
    own = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks/{rank}", own)
        store.wait([f"answer/{own}"], _START)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{rank}", "")
        return name
    waiting, deadline = set(range(1, world)), time.monotonic() + _START.total_seconds()
    while waiting:
        for other in sorted(waiting):
            if store.check([f"heard/{own}/{other}"]):
                waiting.remove(other)
            elif store.check([f"asks/{other}"]):
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise UserError(
                f"torchrun: ranks {', '.join(map(str, sorted(waiting)))} have not come within "
                f"{_START.total_seconds():.0f} s; look at the log of their machine."
            )
        time.sleep(0.02)
    return own


def torchrun_layout(environ: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Machines, and processes on this one, when torchrun has started this process; else None."""
    if "TORCHELASTIC_RUN_ID" not in environ:
        return None
    return int(environ.get("GROUP_WORLD_SIZE", "1")), int(environ.get("LOCAL_WORLD_SIZE", "1"))


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
