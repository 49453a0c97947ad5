"""Output in parts that are written whole and joined at the end: a file is never half written."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.files import exclusive_lock, open_new, read_regular, replacing, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.negatives.generate import TYPES, Negatives

_NAMED = 3  # files of captions in a message


@dataclass
class Counts:
    """How many captions there were, and what became of each type."""

    captions: int = 0  # written lines
    made: Counter[str] = field(default_factory=Counter)  # type -> valid negatives
    #: Type -> reason -> captions without one.
    refused: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in TYPES})
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> entries that are not captions

    def add(self, one: Negatives) -> None:
        """Count the negatives of one caption."""
        self.captions += 1
        self.made.update(list(one.texts))
        for kind, reason in one.reasons.items():
            self.refused[kind][reason] += 1

    def add_counts(self, other: "Counts") -> None:
        """Add those of a part."""
        self.captions += other.captions
        self.made.update(other.made)
        for kind, reasons in other.refused.items():
            self.refused[kind].update(reasons)
        for reason, count in other.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def to_json(self) -> dict[str, Any]:
        """As plain objects, in a fixed order."""
        return {
            "captions": self.captions,
            "types": {
                kind: {
                    "valid": self.made[kind],
                    "invalid": dict(sorted(self.refused[kind].items(), key=lambda item: (-item[1], item[0]))),
                }
                for kind in TYPES
            },
            "skipped": dict(sorted(self.skipped.items())),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Counts":
        """The inverse of :meth:`to_json`."""
        return cls(
            captions=record["captions"],
            made=Counter({kind: record["types"][kind]["valid"] for kind in TYPES}),
            refused={kind: Counter(record["types"][kind]["invalid"]) for kind in TYPES},
            skipped=dict(record["skipped"]),
        )


class PartsWriter:
    """Writes ``output`` through the folder ``<output>.parts``; an interrupted run goes on with what is there.

    Args:
        output: The JSON Lines file to make. ``<output>.summary.json`` is written beside it.
        plan: What decides the content; parts and outputs of another plan are never mixed with this one.
        overwrite: Start again where there is something of another plan.

    Raises:
        DataError: when the output, or an unfinished one, is of another plan; or it cannot be written.
    """

    def __init__(self, output: Path, plan: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.output = output
        self.summary = output.with_name(f"{output.name}.summary.json")
        self._folder = output.with_name(f"{output.name}.parts")
        self._plan: dict[str, Any] = parse_json(json.dumps(plan))
        self._overwrite = overwrite
        if output.is_dir():
            raise DataError(
                f"--output {output}: is a folder; name a file, e.g. {output / 'negatives.jsonl'}."
            )

    def finished(self) -> Counts | None:
        """The counts of an output that is already there, whole and of this plan; None: there is none."""
        if not self.output.exists():
            return None
        summary = _read(self.summary)
        difference = self._difference(summary.get("plan"))
        if difference is None:
            return Counts.from_json(summary)
        if self._overwrite:
            return None
        raise DataError(
            f"--output {self.output}: is there, and not from these settings ({difference}); name another file, or "
            "use --overwrite."
        )

    @contextlib.contextmanager
    def begin(self) -> Iterator[set[int]]:
        """Make or reopen the folder, for one process at a time; yields the numbers of the parts it has."""
        with _reported(self.output):
            self._folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(exclusive_lock(self._folder / "lock", wait=False))
                except BlockingIOError as error:
                    raise DataError(
                        f"{self._folder}: another run is writing it; wait for it, or name another --output."
                    ) from error
                self._check_plan()
                yield {
                    int(path.stem.removeprefix("part-"))
                    for path in self._folder.glob("part-*.jsonl")
                    if path.with_suffix(".json").exists()
                }

    def _check_plan(self) -> None:
        place = self._folder / "plan.json"
        if place.exists():
            difference = self._difference(_read(place))
            if difference is None:
                return
            if not self._overwrite:
                raise DataError(
                    f"{self._folder}: was begun with other settings ({difference}); use the same again, name "
                    "another --output, or use --overwrite to start anew."
                )
            for path in self._folder.glob("part-*.json*"):
                path.unlink()
        write_atomically(place, json.dumps(self._plan, indent=2))

    def _difference(self, other: Any) -> str | None:
        if not isinstance(other, dict) or not other:
            return "nothing says how it was made"
        names = sorted({*other, *self._plan} - {"files"})
        name = next((name for name in names if other.get(name) != self._plan.get(name)), None)
        if name is None:
            return None
        if name != "captions":  # those are a checksum
            return f"{name} was {other.get(name)}, now it is {self._plan.get(name)}"
        before, now = (_listed_files(plan.get("files")) for plan in (other, self._plan))
        if before == now or not before:
            return f"the captions of {now}, or how they are read, have changed"
        return f"captions were of {before}, now they are of {now}"

    def write(self, number: int, lines: str, counts: Counts) -> None:
        """Keep a part; it counts as there when its lines are."""
        with _reported(self.output):
            write_atomically(self._part(number).with_suffix(".json"), json.dumps(counts.to_json()))
            write_atomically(self._part(number), lines)

    def finish(self, parts: int, skipped: Mapping[str, int]) -> Counts:
        """Join the parts ``0 .. parts - 1``, write the summary, and remove the folder."""
        total = Counts(skipped=dict(skipped))
        places = [self._part(number) for number in range(parts)]
        with _reported(self.output):
            for place in places:
                counts = parse_json(read_regular(place.with_suffix(".json")))
                total.add_counts(Counts.from_json(counts))
            summary = json.dumps({"plan": self._plan, **total.to_json()}, indent=2) + "\n"
            with replacing(self.output) as whole:
                with open_new(whole) as file:
                    for place in places:
                        file.write(place.read_bytes())
                write_atomically(self.summary, summary)
            for path in [
                *self._folder.glob("part-*.json*"),
                *self._folder.glob(".*.part"),  # of killed processes
                self._folder / "plan.json",
                self._folder / "lock",
            ]:
                path.unlink()
            with contextlib.suppress(OSError):  # someone put a file of their own there
                self._folder.rmdir()
        return total

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.jsonl"


def _listed_files(files: Any) -> str:
    """The first names of a list; none of what is no such list, as in folders of earlier versions."""
    names = [str(name) for name in files] if isinstance(files, list) else []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _read(path: Path) -> dict[str, Any]:
    """An object of a file; empty where it cannot be read."""
    try:
        content = parse_json(read_regular(path))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _reported(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"--output {output}: cannot be written ({error}); choose a folder with space that you may write."
        ) from error
