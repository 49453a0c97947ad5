"""Who runs the units: processes of this machine, the tasks of a SLURM array, or a Ray cluster.

The engine decides nothing about the output: the bytes are the same whatever the engine, the order, the number of
processes, and however often they were killed.
"""

import contextlib
import functools
import itertools
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from loguru import logger

from hypvl.checks import natural_number, one_of, whole_number, whole_number_or_none
from hypvl.errors import ConfigError, DataError, UserError
from hypvl.units.pool import StartMethod, Tick, run_jobs
from hypvl.units.unit import Unit, UnitFolder, UnitFunction, UnitResult

EngineName: TypeAlias = Literal["local", "slurm-array", "ray"]
_POLL_SECONDS = 1.0
_AHEAD = 2  # units per process that Ray has been given


@dataclass(frozen=True)
class Engine:
    """How units are run.

    Args:
        name: ``"local"``: processes of this machine. ``"slurm-array"``: the same, for this task's share of the units.
            ``"ray"``: the Ray cluster that this machine belongs to, or a new one of this machine's processors.
        workers: Processes; 0 or 1 works in this one (Ray: in one). None: 0, Ray: one for each processor of the cluster.
        index: Of the share, from 0; None: from SLURM_ARRAY_TASK_ID, counted from the array's first task where ``count``
            is None, too.
        count: Of all shares; None: SLURM_ARRAY_TASK_COUNT.
        gpus: Ray: share of a GPU that a process needs.
        start_method: How processes of this machine are started.

    Raises:
        ConfigError: an index or a count where there are no shares; an index that is not below the count.

    Example:
        >>> Engine("slurm-array", index=1, count=3).share(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    name: EngineName = "local"
    workers: int | None = None
    index: int | None = None
    count: int | None = None
    gpus: float = 0.0
    start_method: StartMethod = "spawn"

    def __post_init__(self) -> None:
        one_of("name", self.name, EngineName)
        one_of("start_method", self.start_method, StartMethod)
        whole_number_or_none("workers", self.workers, least=0)
        if self.name == "slurm-array":
            index, count = self.index, self.count
            if index is None and count is None:
                index, count = slurm_share(os.environ)
            # with --count alone, tasks of an array that are tried again: --array=3,7 --count 10
            index = _slurm_number(os.environ, "ID") if index is None else index
            count = _slurm_number(os.environ, "COUNT") if count is None else count
            whole_number("--count", count, least=1)
            if not 0 <= index < count:
                raise ConfigError(
                    f"--index: got {index}; expected 0 to {count - 1}, as there are {count} shares (--count)."
                )
            object.__setattr__(self, "index", index)
            object.__setattr__(self, "count", count)
        elif self.index is not None or self.count is not None:
            raise ConfigError(
                f"--index and --count name a share of the units; they need --engine slurm-array, not {self.name}."
            )

    @property
    def in_other_processes(self) -> bool:
        """Whether others than this process do the work."""
        return self.name == "ray" or (self.workers or 0) > 1

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Those of the units that this process, or its workers, make."""
        if self.name != "slurm-array" or self.index is None or self.count is None:
            return list(units)
        return list(units[self.index :: self.count])


def slurm_share(environment: Mapping[str, str]) -> tuple[int, int]:
    """(index, count) of the task of a SLURM job array, from its environment variables.

    Raises:
        ConfigError: this is no task of an array, or one with gaps.

    Example:
        >>> slurm_share({"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "5"})
        (2, 5)
    """
    defaults = {"ID": None, "COUNT": None, "MIN": "0", "STEP": "1"}
    values = {name: _slurm_number(environment, name, default) for name, default in defaults.items()}
    index, rest = divmod(values["ID"] - values["MIN"], max(1, values["STEP"]))
    if rest or not 0 <= index < values["COUNT"]:
        raise ConfigError(
            f"--engine slurm-array: task {values['ID']} of an array with gaps ({values['COUNT']} tasks from "
            f"{values['MIN']} on); give --index and --count."
        )
    return index, values["COUNT"]


def _slurm_number(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environment.get(f"SLURM_ARRAY_TASK_{name}", default)
    value = None if text is None else natural_number(text)
    if value is None:
        state = "is not set" if text is None else f"is {text!r}"
        raise ConfigError(
            f"--engine slurm-array: SLURM_ARRAY_TASK_{name} {state}; expected a number: start the command with "
            "sbatch --array=0-99, or give --index and --count."
        )
    return value


def run_units(
    units: Sequence[Unit],
    function: UnitFunction,
    *,
    folder: UnitFolder,
    engine: Engine | None = None,
    on_tick: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Make the units of this engine's share; yields their results in any order, each with what was made or why not.

    Units that are done stay as they are. Those on which another process works are waited for: after the last result
    every unit of the share is done or failed. A unit that fails does not stop the others.

    Args:
        units: With different names.
        function: Called as ``function(unit.argument, folder, tick)``; picklable unless it runs in this process.
        folder: The output folder.
        engine: Who runs them; None = this process.
        on_tick: Receives the sum of what ``tick`` was called with, several times a second (not with Ray).

    Raises:
        DataError: the folder is of other settings, two units have one name, or a worker has died.
        UnwritableError: the output folder cannot be written to.
        UserError: Ray is not installed, or its cluster cannot be used.

    Example:
        >>> import tempfile
        >>> from hypvl.units.unit import Made, Unit, UnitFolder
        >>> def double(number, folder, tick):
        ...     (folder / f"{number}.txt").write_text(str(2 * number))
        ...     return Made([f"{number}.txt"], {"value": 2 * number})
        >>> units = [Unit("a", argument=3), Unit("b", argument=4)]
        >>> folder = UnitFolder(Path(tempfile.mkdtemp()), command="double", settings={})
        >>> [(result.name, result.status, result.counts) for result in run_units(units, double, folder=folder)]
        [('a', 'made', {'value': 6}), ('b', 'made', {'value': 8})]
        >>> [result.status for result in run_units(units, double, folder=folder)]
        ['existed', 'existed']
    """
    engine = Engine() if engine is None else engine
    names = [unit.name for unit in units]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{twice}: two inputs have this name; process them into different folders.")
    folder.check_settings(write=True)
    todo: list[Unit] = []
    for unit in engine.share(units):
        result = _look(folder, unit)
        if result is None:
            todo.append(unit)
        else:
            yield result
    job = functools.partial(_run, folder=folder, function=function)
    told = False
    try:
        while todo:
            waiting: list[Unit] = []
            with contextlib.closing(_results(engine, job, todo, on_tick)) as results:
                for unit, result in results:
                    if result.status == "busy":
                        waiting.append(unit)
                    else:
                        yield result
            todo = []
            while waiting and not todo:
                if not told:
                    logger.info("waiting for {} that other processes work on", _listed(waiting, folder))
                    told = True
                time.sleep(_POLL_SECONDS)
                free = [unit for unit in waiting if not folder.is_busy(unit)]
                waiting = [unit for unit in waiting if unit not in free]
                for unit in free:
                    done = _look(folder, unit)
                    if done is None:
                        todo.append(unit)
                    else:
                        yield done
            todo += waiting
    finally:
        folder.remove_left_work()


def make_unit(unit: Unit, function: UnitFunction, *, folder: UnitFolder) -> UnitResult:
    """Make one unit in this process, as :func:`run_units`; for callers that bring their own engine.

    Raises:
        DataError: the unit cannot be made, or the folder is of other settings.
    """
    (result,) = run_units([unit], function, folder=folder)
    if result.status == "failed":
        raise DataError(result.error)
    return result


def _look(folder: UnitFolder, unit: Unit) -> UnitResult | None:
    """The result of a unit that is done, or cannot be made; None = it is to be made."""
    try:
        return folder.finished(unit)
    except UserError as error:
        return UnitResult(unit.name, "failed", error=str(error))


def _listed(units: Sequence[Unit], folder: UnitFolder) -> str:
    claim = folder.claims.current(units[0].name)
    owner = "" if claim is None or claim.owner is None else f" ({claim.owner})"
    return f"{units[0].name}{owner}" + (f" and {len(units) - 1} more" if len(units) > 1 else "")


def _run(unit: Unit, tick: Tick, *, folder: UnitFolder, function: UnitFunction) -> UnitResult:
    return folder.run(unit, function, tick)


_Job: TypeAlias = Callable[[Unit, Tick], UnitResult]


def _results(
    engine: Engine, job: _Job, units: Sequence[Unit], on_tick: Callable[[int], None] | None
) -> Generator[tuple[Unit, UnitResult], None, None]:
    if engine.name == "ray":
        yield from _on_ray(engine, job, units)
        return
    workers = min(engine.workers or 0, len(units))
    processes = run_jobs(
        job, units, num_workers=0 if workers == 1 else workers, on_progress=on_tick,
        start_method=engine.start_method,
    )  # fmt: skip
    with contextlib.closing(processes):
        for number, result in processes:
            if isinstance(result, UserError):  # what no other unit could bear either
                raise result
            yield units[number], result


def _on_ray(engine: Engine, job: _Job, units: Sequence[Unit]) -> Iterator[tuple[Unit, UnitResult]]:
    ray = import_ray()
    started = not ray.is_initialized()
    with _ray_errors(ray):
        if started:  # the cluster of RAY_ADDRESS, or of this machine, or a new one
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            except Exception as error:  # of any type
                raise _cluster_error(error) from error
        try:
            resources = ray.cluster_resources()
            gpus = engine.gpus if resources.get("GPU", 0) >= engine.gpus else 0
            remote = ray.remote(num_cpus=1, num_gpus=gpus)(_run_remotely)
            shared, here = ray.put(job), str(Path.cwd())
            limit = engine.workers or _AHEAD * max(1, int(resources.get("CPU", 1)))
            pending: dict[Any, Unit] = {}
            rest = iter(units)
            while True:
                for unit in itertools.islice(rest, limit - len(pending)):
                    pending[remote.remote(shared, unit, here)] = unit
                if not pending:
                    break
                (reference,), _ = ray.wait(list(pending), num_returns=1)
                result = ray.get(reference)
                if isinstance(result, UserError):  # what no other unit could bear either
                    raise result
                yield pending.pop(reference), result
        finally:
            if started:
                ray.shutdown()


def _run_remotely(job: _Job, unit: Unit, folder: str) -> UnitResult | UserError:
    """In a process of the cluster: ``folder`` is where the command was started, from which its paths are taken."""
    try:
        with contextlib.chdir(folder):
            return job(unit, lambda units: None)
    except UserError as error:
        return error
    except FileNotFoundError as error:
        if error.filename != folder:
            raise
        return UserError(
            f"--engine ray: {folder} does not exist on {socket.gethostname()}; start the command in a folder that all "
            "machines of the cluster have."
        )


def import_ray() -> Any:
    """Ray, which then sends no usage statistics. Raises UserError, saying what to install, when it is absent."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray, which is not installed: pip install 'hypvl[ray]', or use --engine local."
        ) from error
    return ray


@contextlib.contextmanager
def _ray_errors(ray: Any) -> Iterator[None]:
    """What a cluster may do, in one sentence; errors of the program itself pass through."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise _cluster_error(error) from error


def _cluster_error(error: Exception) -> UserError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UserError(
        f"--engine ray: the cluster cannot be used ({reason}); check RAY_ADDRESS and its machines, then run the same "
        "command again."
    )
