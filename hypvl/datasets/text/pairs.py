"""Readers of pairs of sentences with a gold similarity: STS12 to STS16, STS-B, SICK-R, words of RG65 and others.

They raise MissingDataError when files are not there, naming all of them, and DataError when they have another layout.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import read_text, require_files, text_lines
from hypvl.errors import DataError

#: Subsets of each year's task, as SentEval's files are called.
STS_SUBSETS: dict[int, tuple[str, ...]] = {
    2012: ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    2013: ("FNWN", "headlines", "OnWN"),
    2014: ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    2015: ("answers-forums", "answers-students", "belief", "headlines", "images"),
    2016: ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
Split: TypeAlias = Literal["train", "dev", "test"]
_SICK = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
_LARGEST_TABLE = 1 << 28  # bytes of stsbenchmark.tsv once unpacked


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of texts and how similar people find them, one pair a row."""

    name: str  # of the set, for messages
    first: Sequence[str]
    second: Sequence[str]
    gold: Sequence[float]  # higher = more similar; any scale
    subset: Sequence[str]  # the part of the set that each pair is from

    def __post_init__(self) -> None:
        sizes = {len(part) for part in (self.first, self.second, self.gold, self.subset)}
        if len(sizes) > 1 or len(self.gold) < 2:
            raise DataError(f"{self.name}: has {len(self.gold)} pairs that can be used; expected at least 2.")


@configurable("evaluate")
def sts(root: str | Path, *, year: int) -> SentencePairs:
    """A task of SemEval's years 2012 to 2016, test pairs: ``root/STS/STS12-en-test/STS.input.MSRpar.txt`` and others.

    ``STS.input.<subset>.txt`` has two sentences a line with a tab between, ``STS.gs.<subset>.txt`` the score in the
    same line. Pairs without a score are left out.

    Args:
        root: SentEval's folder ``data/downstream``.
        year: 2012 to 2016.

    Source: Agirre et al. 2012 to 2016; the layout is SentEval's (Conneau and Kiela 2018, arXiv 1803.05449).
    """
    one_of("year", year, tuple(STS_SUBSETS))
    subsets = STS_SUBSETS[year]
    folder = Path(root) / "STS" / f"STS{year - 2000}-en-test"
    files = [(folder / f"STS.input.{name}.txt", folder / f"STS.gs.{name}.txt") for name in subsets]
    require_files([path for both in files for path in both], "put SentEval's data/downstream/STS there")
    rows: list[_Row] = []
    for subset, (sentences, scores) in zip(subsets, files, strict=True):
        pairs, gold = _lines(sentences), _lines(scores)
        if len(pairs) != len(gold):
            raise DataError(
                f"{scores}: has {len(gold)} lines for {len(pairs)} in {sentences.name}; copy both files again."
            )
        for number, (pair, score) in enumerate(zip(pairs, gold, strict=True), start=1):
            first, second, *_ = _columns(pair, 2, f"{sentences}, line {number}")
            rows.append(_Row(first, second, score, f"{scores}, line {number}", subset))
    return _pairs(f"STS{year - 2000}", rows, folder)


@configurable("evaluate")
def sts_benchmark(root: str | Path, *, split: Split = "test") -> SentencePairs:
    """STS-B in SentEval's layout: ``root/STS/STSBenchmark/sts-test.csv``, tabs between, the score in column 5.

    Args:
        root: SentEval's folder ``data/downstream``.
        split: Which file.

    Source: Cer et al. 2017 (arXiv 1708.00055).
    """
    one_of("split", split, Split)
    path = Path(root) / "STS" / "STSBenchmark" / f"sts-{split}.csv"
    require_files([path], "put SentEval's data/downstream/STS/STSBenchmark there")
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        columns = _columns(line, 7, where)
        rows.append(_Row(columns[5], columns[6], columns[4], where))
    return _pairs(f"STS-B {split}", rows, path)


@configurable("evaluate")
def sick_relatedness(root: str | Path, *, split: Split = "test") -> SentencePairs:
    """SICK-R: ``root/SICK/SICK_test_annotated.txt``, a header, sentences in columns 2 and 3, the score in column 4.

    Args:
        root: SentEval's folder ``data/downstream``.
        split: ``dev`` is ``SICK_trial.txt``.

    Source: Marelli et al. 2014.
    """
    one_of("split", split, Split)
    path = Path(root) / "SICK" / _SICK[split]
    require_files([path], "put SentEval's data/downstream/SICK there")
    rows = []
    for number, line in enumerate(_lines(path)[1:], start=2):
        where = f"{path}, line {number}"
        columns = _columns(line, 4, where)
        rows.append(_Row(columns[1], columns[2], columns[3], where))
    return _pairs(f"SICK-R {split}", rows, path)


@configurable("evaluate")
def sts_benchmark_table(path: str | Path, *, split: Split = "test") -> SentencePairs:
    """STS-B as sentence-transformers ships it: ``stsbenchmark.tsv.gz`` with split, score, sentence1, sentence2.

    Scores 0 to 5 are divided by 5. Subsets are the ``genre`` of a pair where the file has one.

    Args:
        path: The file, compressed or not.
        split: Which rows.
    """
    one_of("split", split, Split)
    path = Path(path)
    require_files([path], "put stsbenchmark.tsv.gz of sentence-transformers there")
    rows = []
    table = csv.DictReader(
        io.StringIO(_unpacked(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True
    )
    needed = ("split", "score", "sentence1", "sentence2")
    if lacking := [name for name in needed if name not in (table.fieldnames or ())]:
        raise DataError(
            f"{path}: has no column {', '.join(lacking)}; expected a header with {', '.join(needed)}."
        )
    for row in table:
        where = f"{path}, line {table.line_num}"
        if None in row.values():
            raise DataError(f"{where}: has fewer columns than the header; download the file again.")
        if row["split"] == split:
            subset = row.get("genre", "")
            rows.append(_Row(row["sentence1"], row["sentence2"], row["score"], where, subset))
    return _pairs(f"STS-B {split}", rows, path, scale=5.0)


@configurable("evaluate")
def word_pairs(path: str | Path) -> SentencePairs:
    """Pairs of words with a similarity: lines ``word1;word2;score`` without a header, as ITRA keeps RG65 and others.

    Args:
        path: ``rg65.csv``, ``simlex999.csv`` or ``wordsim353.csv``.

    Source: Rubenstein and Goodenough 1965 (RG65); Hill et al. 2015 (SimLex-999); Finkelstein et al. 2002 (WordSim-353).
    """
    path = Path(path)
    require_files([path], "write one pair a line there, word1;word2;score")
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            first, second, score, *_ = _columns(line, 3, where, separator=";")
            rows.append(_Row(first, second, score, where))
    return _pairs(path.stem, rows, path)


class _Row(NamedTuple):
    first: str
    second: str
    score: str  # as it is written; blank where there is none
    where: str
    subset: str = ""


def _pairs(name: str, rows: Iterable[_Row], place: Path, *, scale: float = 1.0) -> SentencePairs:
    """The rows that have a score; an error names the file or folder they are from."""
    used = [row for row in rows if row.score.strip()]
    if len(used) < 2:
        raise DataError(f"{place}: has {len(used)} pairs of {name} with a score; expected at least 2.")
    gold = []
    for row in used:
        try:
            score = float(row.score)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{row.where}: the score is {row.score[:40]!r}; expected a number.")
        gold.append(score / scale)
    return SentencePairs(
        name,
        first=[plain(row.first) for row in used],
        second=[plain(row.second) for row in used],
        gold=gold,
        subset=[row.subset for row in used],
    )


def plain(text: str) -> str:
    """Words with single blanks between; "." for a text without any."""
    return " ".join(text.split()) or "."


def _lines(path: Path) -> list[str]:
    """All lines, blank ones too, without what follows the last line end."""
    lines = text_lines(read_text(path))
    return lines[:-1] if lines[-1] == "" else lines


def _columns(line: str, least: int, where: str, *, separator: str = "\t") -> list[str]:
    columns = line.split(separator)
    if len(columns) < least:
        between = "tabs" if separator == "\t" else f"{separator!r}"
        raise DataError(
            f"{where}: has {len(columns)} columns; expected at least {least} with {between} between."
        )
    return columns


def _unpacked(path: Path) -> str:
    """The text of a file that may be compressed with gzip."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if not packed:
            return read_text(path)
        with gzip.open(path) as source:
            data = source.read(_LARGEST_TABLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); download it again.") from error
    if len(data) > _LARGEST_TABLE:
        raise DataError(f"{path}: holds more than {_LARGEST_TABLE} bytes; expected the table of STS-B.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text ({error}); download it again.") from error
