"""SentEval's data/downstream in small, as far as suites read it; `root` stands for ./datasets.

Fills roots.senteval and roots.stsbenchmark of configs/eval_sts.py.
"""

import gzip
from pathlib import Path

from hypvl.datasets.text.pairs import STS_SUBSETS
from tests.evaluation.miniatures.retrieval import write

#: Pairs and their scores, as every subset of STS has them here; the third has no score.
PAIRS = (
    ("a red  ball", "a red ball is there", "4.8"),
    ("a red ball", "a green tree", "0.4"),
    ("the sea", "a dog", ""),
    ("red and blue", "a red ball", "2.6"),
    ('a "yellow dog', "yellow and red", "3"),
)


def make(root: Path) -> None:
    """Everything below senteval/ and stsbenchmark/."""
    folder = root / "senteval"
    for year, subsets in STS_SUBSETS.items():
        for number, subset in enumerate(subsets):
            task = folder / "STS" / f"STS{year - 2000}-en-test"
            pairs = PAIRS[: 4 + number % 2]
            # Those of 2016 have the sources of the sentences in further columns.
            more = "\tan answer\tanother" if year == 2016 else ""
            write(task / f"STS.input.{subset}.txt", "".join(f"{a}\t{b}{more}\n" for a, b, _ in pairs))
            write(task / f"STS.gs.{subset}.txt", "".join(f"{score}\n" for *_, score in pairs))
    scored = [pair for pair in PAIRS if pair[2]]
    for split in ("train", "dev", "test"):
        lines = [
            f"main-captions\tMSRvid\t2012test\t{i:04}\t{s}\t{a}\t{b}\n" for i, (a, b, s) in enumerate(scored)
        ]
        write(folder / "STS" / "STSBenchmark" / f"sts-{split}.csv", "".join(lines))
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    for name in ("SICK_train", "SICK_trial", "SICK_test_annotated"):
        lines = [f"{i}\t{a}\t{b}\t{s}\tNEUTRAL\n" for i, (a, b, s) in enumerate(scored, start=1)]
        write(folder / "SICK" / f"{name}.txt", header + "".join(lines))
    table = "split\tgenre\tfilename\tyear\tsid\tscore\tsentence1\tsentence2\n"
    for split in ("train", "dev", "test"):
        for number, (a, b, score) in enumerate(scored):
            genre = ("main-captions", "main-news")[number // 2]
            table += f"{split}\t{genre}\tMSRvid\t2012test\t{number}\t{score}\t{a}\t{b}\n"
    (root / "stsbenchmark").mkdir(parents=True, exist_ok=True)
    (root / "stsbenchmark" / "stsbenchmark.tsv.gz").write_bytes(gzip.compress(table.encode(), mtime=0))
