"""Reader of MS MARCO's passages: a collection of millions, read when asked for, queries and relevant passages."""

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from hypvl.allowlist import configurable
from hypvl.checks import whole_number_or_none
from hypvl.datasets.files import read_lines, require_files
from hypvl.datasets.text.pairs import plain
from hypvl.errors import DataError
from hypvl.io.files import open_regular

_FILES = ("collection.tsv", "queries.dev.small.tsv", "qrels.dev.tsv")


class Passages(Sequence[str]):
    """Passages of a file with a line ``id<TAB>text`` each. In memory are 16 bytes a passage.

    A slice is a list of texts, read at once.

    Args:
        path: The file, UTF-8.
        places: (N, 2) int64, the first byte of the line of each passage and the byte behind it, ascending.
    """

    def __init__(self, path: Path, places: np.ndarray) -> None:
        self.path = path
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Raises DataError when the file cannot be read or is no UTF-8 there."""
        if isinstance(index, slice):
            return [plain(text) for _, text in self._lines(range(len(self))[index])]
        return plain(self._lines([range(len(self))[index]])[0][1])

    def ids(self, positions: Sequence[int]) -> list[str]:
        """What the file calls passages."""
        return [name for name, _ in self._lines(positions)]

    def _lines(self, positions: Sequence[int]) -> list[tuple[str, str]]:
        lines = []
        try:
            with open_regular(self.path) as file:
                for start, end in self._places[np.asarray(positions, dtype=np.int64)].tolist():
                    file.seek(start)
                    name, _, text = file.read(end - start).decode("utf-8").rstrip("\r\n").partition("\t")
                    lines.append((name, text))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: is no UTF-8 text ({error}); copy the file again.") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check the path.") from error
        return lines


@dataclass(frozen=True)
class PassageSet:
    """Queries and the passages that answer them."""

    name: str  # for messages
    passages: Passages
    queries: Sequence[str]
    query_ids: Sequence[str]
    relevant: Sequence[Sequence[int]]  # positions of the passages of each query, at least one
    notes: dict[str, Any] = field(default_factory=dict)  # counts of what was left out


@configurable("evaluate")
def ms_marco(root: str | Path, *, max_passages: int | None = None) -> PassageSet:
    """MS MARCO passage ranking, dev small: ``collection.tsv``, ``queries.dev.small.tsv`` and ``qrels.dev.tsv`` in root.

    Lines are ``pid<TAB>passage``, ``qid<TAB>query`` and ``qid 0 pid 1``. Queries without a relevant passage are left
    out.

    Args:
        root: Folder of the three files.
        max_passages: A smaller corpus: all relevant passages, and the first others of the file, this many in all (more
            if there are more relevant ones). Its numbers are higher than those of the whole. None = all 8.8 million.

    Raises:
        MissingDataError: naming the files that are not there.
        DataError: for another layout, or a relevant passage that is not in the collection.

    Source: Bajaj et al. 2016 (arXiv 1611.09268).
    """
    whole_number_or_none("max_passages", max_passages, least=1)
    collection, queries_file, qrels = (Path(root) / name for name in _FILES)
    require_files(
        [collection, queries_file, qrels], "put collectionandqueries.tar.gz of MS MARCO there, unpacked"
    )
    queries: dict[str, str] = {}
    for number, line in enumerate(read_lines(queries_file), start=1):
        name, tab, text = line.partition("\t")
        if not tab:
            raise DataError(f"{queries_file}, line {number}: has no tab; expected `qid<TAB>query`.")
        queries[name] = plain(text)
    wanted: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(qrels), start=1):
        columns = line.split()
        if len(columns) != 4 or not columns[3].isdecimal():
            raise DataError(f"{qrels}, line {number}: is {line[:60]!r}; expected `qid 0 pid 1`.")
        if columns[0] in queries and int(columns[3]) > 0:
            wanted.setdefault(columns[0], []).append(columns[2])
    if not wanted:
        raise DataError(f"{qrels}: names no query of {queries_file.name}; copy both files again.")
    relevant_ids = {pid for pids in wanted.values() for pid in pids}
    places, position = _scan(collection, relevant_ids, max_passages)
    if absent := sorted(relevant_ids - set(position)):
        raise DataError(
            f"{collection}: lacks {len(absent)} relevant passages, such as {absent[0]}; copy the file again."
        )
    used = [name for name in queries if name in wanted]
    return PassageSet(
        "MS MARCO",
        Passages(collection, places),
        queries=[queries[name] for name in used],
        query_ids=used,
        relevant=[sorted({position[pid] for pid in wanted[name]}) for name in used],
        notes={"queries_without_relevant": len(queries) - len(used), "max_passages": max_passages},
    )


def _scan(path: Path, needed: Collection[str], most: int | None) -> tuple[np.ndarray, dict[str, int]]:
    """Where the retained lines are, (N, 2), and the position of each needed passage."""
    wanted = {name.encode() for name in needed}
    others = None if most is None else max(0, most - len(wanted))
    starts, ends = array("q"), array("q")
    position: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            end = 0
            for line in file:
                start, end = end, end + len(line)
                name, tab, _ = line.partition(b"\t")
                if not tab:
                    if line.strip():
                        raise DataError(
                            f"{path}, byte {start}: a line has no tab; expected `pid<TAB>passage`."
                        )
                    continue
                if name in wanted:
                    if position.setdefault(name.decode(), len(starts)) != len(starts):
                        raise DataError(f"{path}: has passage {name.decode()} twice; copy the file again.")
                elif others is not None:
                    if others == 0:
                        continue
                    others -= 1
                starts.append(start)
                ends.append(end)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    return np.stack([np.array(starts), np.array(ends)], axis=1), position
