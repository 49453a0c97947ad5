"""Word pairs in small; `root` stands for ./datasets. Fills roots.wordsim of configs/eval_wordsim.py."""

from pathlib import Path

from tests.evaluation.miniatures.retrieval import write

PAIRS = "red;yellow;3.1\nred;red ball;3.9\ngreen;blue;0.4\nblue;sea;1.5\n"


def make(root: Path) -> None:
    """rg65.csv, simlex999.csv and wordsim353.csv."""
    for name in ("rg65", "simlex999", "wordsim353"):
        write(root / "wordsim" / f"{name}.csv", PAIRS)
