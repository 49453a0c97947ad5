"""Reader of SentEval's transfer tasks: labelled sentences, and pairs of sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import TextEncoding, read_text, require_files, text_lines
from hypvl.datasets.text.pairs import plain
from hypvl.errors import DataError

TaskName: TypeAlias = Literal["mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)

# Files of sets with a file for each class, the class 1 first.
_BY_CLASS = {
    "mr": ("MR/rt-polarity.pos", "MR/rt-polarity.neg"),
    "cr": ("CR/custrev.pos", "CR/custrev.neg"),
    "subj": ("SUBJ/subj.objective", "SUBJ/subj.subjective"),
    "mpqa": ("MPQA/mpqa.pos", "MPQA/mpqa.neg"),
}
_TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


@dataclass(frozen=True)
class LabelledSentences:
    """Sentences, or pairs of them, one a row, with their classes."""

    first: Sequence[str]
    second: Sequence[str] | None  # of each row; None = single sentences
    labels: Sequence[int]  # from 0


@dataclass(frozen=True)
class SentenceTask:
    """A classification of sentences with the splits that its authors made."""

    name: str  # for messages
    classes: Sequence[str]
    train: LabelledSentences  # all sentences where there is no test split
    dev: LabelledSentences | None = None
    test: LabelledSentences | None = None


@configurable("evaluate")
def senteval_task(root: str | Path, *, name: TaskName) -> SentenceTask:
    """One of SentEval's tasks, in the files of its folder ``data/downstream``.

    - ``mr``, ``cr``, ``subj``, ``mpqa``: a sentence a line, a file for each class (``MR/rt-polarity.pos``), Latin-1, no
      splits;
    - ``sst2``: ``SST/binary/sentiment-{train,dev,test}``, lines ``sentence<TAB>label``;
    - ``trec``: ``TREC/train_5500.label`` and ``TREC_10.label``, lines ``CLASS:fine question``, Latin-1, six classes;
    - ``mrpc``: ``MRPC/msr_paraphrase_{train,test}.txt``, pairs, with a header.

    Args:
        root: The folder ``data/downstream``.
        name: The task.

    Raises:
        MissingDataError: naming the files that are not there.
        DataError: for another layout.

    Source: Conneau and Kiela 2018 (arXiv 1803.05449).
    """
    one_of("name", name, TaskName)
    folder = Path(root)
    if name in _BY_CLASS:
        right, wrong = (folder / file for file in _BY_CLASS[name])
        require_files([right, wrong], f"put SentEval's data/downstream/{right.parent.name} there")
        own = {1: _lines(right, "latin-1"), 0: _lines(wrong, "latin-1")}
        texts = [plain(text) for lines in own.values() for text in lines]
        labels = [label for label, lines in own.items() for _ in lines]
        classes = (wrong.suffix[1:], right.suffix[1:])
        return SentenceTask(name, classes, _checked(LabelledSentences(texts, None, labels), right))
    if name == "sst2":
        files = [folder / "SST" / "binary" / f"sentiment-{split}" for split in ("train", "dev", "test")]
        require_files(files, "put SentEval's data/downstream/SST there")
        train, dev, test = (_sst(file) for file in files)
        return SentenceTask(name, ("negative", "positive"), train, dev, test)
    if name == "trec":
        files = [folder / "TREC" / file for file in ("train_5500.label", "TREC_10.label")]
        require_files(files, "put SentEval's data/downstream/TREC there")
        train, test = (_trec(file) for file in files)
        return SentenceTask(name, _TREC_CLASSES, train, None, test)
    files = [folder / "MRPC" / f"msr_paraphrase_{split}.txt" for split in ("train", "test")]
    require_files(files, "put SentEval's data/downstream/MRPC there")
    train, test = (_mrpc(file) for file in files)
    return SentenceTask(name, ("different", "paraphrase"), train, None, test)


def _sst(path: Path) -> LabelledSentences:
    texts, labels = [], []
    for number, line in enumerate(_lines(path), start=1):
        text, tab, label = line.rpartition("\t")
        if not tab or label.strip() not in ("0", "1"):
            raise DataError(f"{path}, line {number}: is {line[:60]!r}; expected `sentence<TAB>0` or 1.")
        texts.append(plain(text))
        labels.append(int(label))
    return _checked(LabelledSentences(texts, None, labels), path)


def _trec(path: Path) -> LabelledSentences:
    texts, labels = [], []
    for number, line in enumerate(_lines(path, "latin-1"), start=1):
        label, _, text = line.partition(" ")
        coarse = label.partition(":")[0]
        if coarse not in _TREC_CLASSES:
            raise DataError(
                f"{path}, line {number}: is {line[:60]!r}; expected `CLASS:fine question`, CLASS one of "
                f"{', '.join(_TREC_CLASSES)}."
            )
        texts.append(plain(text))
        labels.append(_TREC_CLASSES.index(coarse))
    return _checked(LabelledSentences(texts, None, labels), path)


def _mrpc(path: Path) -> LabelledSentences:
    first, second, labels = [], [], []
    for number, line in enumerate(_lines(path)[1:], start=2):
        columns = line.split("\t")
        if len(columns) != 5 or columns[0] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: has {len(columns)} columns, the first {columns[0][:20]!r}; expected 5 with "
                "tabs between, the first 0 or 1."
            )
        first.append(plain(columns[3]))
        second.append(plain(columns[4]))
        labels.append(int(columns[0]))
    return _checked(LabelledSentences(first, second, labels), path)


def _lines(path: Path, encoding: TextEncoding = "utf-8") -> list[str]:
    lines = [line for line in text_lines(read_text(path, encoding=encoding)) if line.strip()]
    if not lines:
        raise DataError(f"{path}: has no sentences; copy the file again.")
    return lines


def _checked(sentences: LabelledSentences, path: Path) -> LabelledSentences:
    if len(set(sentences.labels)) < 2:
        raise DataError(
            f"{path}: all its {len(sentences.labels)} sentences are of one class; expected several classes."
        )
    return sentences
