"""Readers of pairs of texts, on miniatures in the published layouts."""

import gzip
from pathlib import Path

import pytest

from hypvl.datasets.text.pairs import (
    STS_SUBSETS,
    sick_relatedness,
    sts,
    sts_benchmark,
    sts_benchmark_table,
    word_pairs,
)
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.miniatures import senteval


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    senteval.make(folder)
    return folder


@pytest.mark.parametrize("year", STS_SUBSETS)
def test_subsets_follow_each_other_and_pairs_without_a_score_are_left_out(root: Path, year: int) -> None:
    data = sts(root / "senteval", year=year)
    assert tuple(dict.fromkeys(data.subset)) == STS_SUBSETS[year]
    assert data.gold[:3] == [4.8, 0.4, 2.6]
    assert data.first[:2] == ["a red ball"] * 2  # single blanks
    assert data.second[0] == "a red ball is there"  # and no further columns
    assert data.subset.count(STS_SUBSETS[year][1]) == 4


def test_other_layouts(root: Path) -> None:
    for data in (sts_benchmark(root / "senteval"), sick_relatedness(root / "senteval")):
        assert data.gold == [4.8, 0.4, 2.6, 3.0] and data.first[3] == 'a "yellow dog'
    table = sts_benchmark_table(root / "stsbenchmark" / "stsbenchmark.tsv.gz", split="dev")
    assert table.gold == pytest.approx([0.96, 0.08, 0.52, 0.6])
    assert table.subset == ["main-captions"] * 2 + ["main-news"] * 2 and table.first[3] == 'a "yellow dog'


def test_an_empty_sentence_is_a_full_stop(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("car;automobile;3.92\n ;glass;1\r\n\n")
    data = word_pairs(tmp_path / "words.csv")
    assert (data.first, data.second, data.gold) == (["car", "."], ["automobile", "glass"], [3.92, 1.0])


def test_missing_files_are_all_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"STS\.input\.FNWN\.txt, STS\.gs\.FNWN\.txt, STS\.input\.headlines"
    ):
        sts(tmp_path, year=2013)
    for read in (sts_benchmark, sick_relatedness):
        with pytest.raises(MissingDataError, match=r"downstream"):
            read(tmp_path)
    with pytest.raises(ValueError, match="year: got 2017"):
        sts(root, year=2017)


def test_broken_files(tmp_path: Path) -> None:
    senteval.make(tmp_path)
    task = tmp_path / "senteval" / "STS" / "STS13-en-test"
    scores = task / "STS.gs.FNWN.txt"
    scores.write_text("1\n2\n")
    with pytest.raises(DataError, match=r"STS\.gs\.FNWN\.txt: has 2 lines for 4 in STS\.input\.FNWN\.txt"):
        sts(tmp_path / "senteval", year=2013)
    scores.write_text("1\n2\nnan\n4\n")
    with pytest.raises(DataError, match=r"FNWN\.txt, line 3: the score is 'nan'; expected a number"):
        sts(tmp_path / "senteval", year=2013)
    (task / "STS.input.FNWN.txt").write_text("one\n" * 4)
    with pytest.raises(DataError, match=r"line 1: has 1 columns; expected at least 2 with tabs between"):
        sts(tmp_path / "senteval", year=2013)
    table = tmp_path / "stsbenchmark" / "stsbenchmark.tsv.gz"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        sts_benchmark_table(table)
    table.write_bytes(gzip.compress(b"split\tscore\ntest\t1\n"))
    with pytest.raises(DataError, match="has no column sentence1, sentence2"):
        sts_benchmark_table(table)
    empty = tmp_path / "senteval" / "STS" / "STSBenchmark" / "sts-test.csv"
    empty.write_text("")
    with pytest.raises(DataError, match=r"sts-test\.csv: has 0 pairs of STS-B test with a score"):
        sts_benchmark(tmp_path / "senteval")
    (tmp_path / "one.csv").write_text("car;automobile;3.92\n")
    with pytest.raises(DataError, match=r"one\.csv: has 1 pairs of one with a score; expected at least 2"):
        word_pairs(tmp_path / "one.csv")
