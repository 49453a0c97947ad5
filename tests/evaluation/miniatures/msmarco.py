"""MS MARCO in small; `root` stands for ./datasets. Fills roots.msmarco of configs/eval_msmarco.py."""

from pathlib import Path

from tests.evaluation.miniatures.retrieval import write

COLLECTION = (
    "0\tA passage on green and  blue.\n"
    "1\tOn a red stone.\n"
    "2\tWhat is blue\u2028is the sea, so blue.\n"
    "3\tA yellow flower.\n"
    "4\tOn nothing.\n"
    "5\tred and green and blue\n"
)
QUERIES = "20\twhich stone is red\n11\twhat is blue\n7\tno one asks\n30\tred green\n"
QRELS = "11\t0\t2\t1\n20\t0\t1\t1\n20\t0\t3\t0\n30\t0\t5\t1\n30 0 1 1\n99\t0\t4\t1\n"


def make(root: Path) -> None:
    """The three files of dev small."""
    for name, content in (
        ("collection.tsv", COLLECTION),
        ("queries.dev.small.tsv", QUERIES),
        ("qrels.dev.tsv", QRELS),
    ):
        write(root / "msmarco" / name, content)
