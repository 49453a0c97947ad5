"""Flags of commands that work shard by shard: which engine runs them, and with how many processes."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from hypvl.cli.common import show
from hypvl.cli.numbers import real, whole

if TYPE_CHECKING:
    from hypvl.units.engines import Engine
    from hypvl.units.pool import StartMethod

_SHOWN = 10  # failed units that are named


def add_engine_arguments(
    parser: argparse.ArgumentParser, *, aliases: Iterable[str] = (), default: str = "this one"
) -> None:
    """``--engine``, ``--workers``, ``--index``, ``--count`` and ``--claim-minutes``, for :func:`engine_of`.

    Args:
        parser: Gets a group of its own for them.
        aliases: Other names of ``--workers``.
        default: What happens without ``--workers``, for its help.
    """
    group = parser.add_argument_group("who works (hypvl docs many_machines)")
    group.add_argument(
        "--engine", choices=("local", "slurm-array", "ray"), default="local",
        help="processes of this machine; this task's share of the shards in a SLURM array; a Ray cluster",
    )  # fmt: skip
    group.add_argument(
        "--workers", *aliases, dest="workers", type=whole(least=0),
        help=f"processes, each with a shard of its own (default: {default}); 0: only this one; ray: shards at once "
        "(default: what its processors can take)",
    )  # fmt: skip
    group.add_argument(
        "--index",
        type=whole(least=0),
        help="slurm-array: number of the share, from 0 (default: SLURM_ARRAY_TASK_ID)",
    )
    group.add_argument(
        "--count", type=whole(least=1), help="slurm-array: number of shares (default: SLURM_ARRAY_TASK_COUNT)"
    )
    group.add_argument(
        "--claim-minutes", type=real(above=0), default=10.0, metavar="MINUTES",
        help="a shard of another machine that gave no sign of life for so long is taken over",
    )  # fmt: skip


def engine_of(
    args: argparse.Namespace, *, gpus: float = 0.0, start_method: "StartMethod" = "spawn"
) -> "Engine":
    """The engine that the flags name. Raises ConfigError."""
    from hypvl.units.engines import Engine, import_ray

    if args.engine == "ray":
        import_ray()  # before anything is read
    return Engine(
        args.engine, workers=args.workers, index=args.index, count=args.count, gpus=gpus, start_method=start_method
    )  # fmt: skip


class Failed(Protocol):
    """A result with an error, such as :class:`hypvl.units.unit.UnitResult`."""

    @property
    def name(self) -> str: ...

    @property
    def error(self) -> str: ...


def named(name: str, text: str) -> str:
    """What is said of a unit, after its name; an error may begin with that already.

    Example:
        >>> named("a-000", "721 images"), named("a-000", "a-000: holds no images.")
        ('a-000: 721 images', 'a-000: holds no images.')
    """
    return text if text.startswith(f"{name}:") else f"{name}: {text}"


def report_failed(failed: Sequence[Failed], total: int, *, what: str) -> int:
    """Name what failed on stderr; the exit code: 1 when there is any, else 0."""
    for result in failed[:_SHOWN]:
        show(named(result.name, str(result.error)), file=sys.stderr)
    if failed:
        more = f" ({len(failed) - _SHOWN} more are not named here)" if len(failed) > _SHOWN else ""
        show(
            f"error: {len(failed)} of {total} {what} failed{more}; the same command tries them again.",
            file=sys.stderr,
        )
    if not total:
        show(f"there are no {what} for this task: its share is empty.", file=sys.stderr)
    return 1 if failed else 0
