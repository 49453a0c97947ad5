"""The classification sets of I0T's data root in small; `root` stands for ./datasets.

Fills roots.i0t of configs/eval_i0t_classification.py.
"""

from pathlib import Path

from tests.evaluation.miniatures.classification import cifar100, folders


def make(root: Path) -> None:
    """Write them below ``root / "i0t"``."""
    base = root / "i0t" / "zeroshot_datasets"
    cifar100(base)
    folders(base / "birdsnap" / "test", ["Acadian_Flycatcher", "Acorn_Woodpecker"], 2)
