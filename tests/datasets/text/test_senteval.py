"""SentEval's folders in small."""

from pathlib import Path

import pytest

from hypvl.datasets.text.senteval import TASKS, senteval_task
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures import senteval_tasks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    senteval_tasks.make(tmp_path)
    return tmp_path / "senteval"


@pytest.mark.parametrize("name", ["mr", "cr", "subj", "mpqa"])
def test_a_file_for_each_class_in_latin_1(root: Path, name: str) -> None:
    task = senteval_task(root, name=name)  # type: ignore[arg-type]
    assert task.dev is None and task.test is None and task.train.second is None
    assert task.train.labels == [1] * 6 + [0] * 6
    assert task.train.first[0] == "the red thing 0" and task.train.first[4] == "red and yellow caf\xe9"
    assert task.train.first[5] == "red again"  # \x85 is white space, and ends no line
    assert task.classes == (("subjective", "objective") if name == "subj" else ("neg", "pos"))


def test_the_tasks_with_splits(root: Path) -> None:
    sst = senteval_task(root, name="sst2")
    assert sst.dev is not None and sst.test is not None and sst.test.labels == [1] * 6 + [0] * 6
    trec = senteval_task(root, name="trec")
    assert trec.test is not None and trec.dev is None
    assert trec.test.labels == [0, 1, 2, 3, 4, 5] and trec.test.first[0] == "What red caf\xe9 is 0 ?"
    mrpc = senteval_task(root, name="mrpc")
    assert mrpc.train.second is not None and mrpc.train.labels == [1, 1, 0, 0, 0, 0, 1, 1]
    assert (mrpc.train.first[0], mrpc.train.second[0]) == ('A "red car 0.', "The red car.")


@pytest.mark.parametrize("name", TASKS)
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError, match=r"lacks .*, .*put SentEval's data/downstream/"):
        senteval_task(tmp_path, name=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("sst2", "SST/binary/sentiment-dev", "red\t2\n", "line 1: is 'red"),
        ("trec", "TREC/TREC_10.label", "DATE:x When ?\n", "line 1: is 'DATE:x When"),
        ("mrpc", "MRPC/msr_paraphrase_test.txt", "Quality\n1\t2\n", "line 2: has 2 columns"),
        ("mr", "MR/rt-polarity.neg", "\n", r"rt-polarity\.neg: has no sentences; copy the file again"),
        ("sst2", "SST/binary/sentiment-dev", "red\t1\n", "all its 1 sentences are of one class"),
    ],
)
def test_broken_files(root: Path, name: str, file: str, content: str, message: str) -> None:
    (root / file).write_text(content)
    with pytest.raises(DataError, match=message):
        senteval_task(root, name=name)  # type: ignore[arg-type]
