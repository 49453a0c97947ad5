"""ImageNet with WordNet's pairs in small; `root` stands for ./datasets.

Fills roots.wordnet (``wordnet.is_a.txt``, ``words.txt``) and, where it is not there yet, ``imagenet/val`` of roots.eval
of configs/eval_hierarchical_metrics.py. ImageNet has 80,000 prompts unless
``evaluate.imagenet.prompts`` is overridden.
"""

from pathlib import Path

from tests.evaluation.miniatures import classification

ROOT, KINDS = "n99999999", ("n99999990", "n99999991")
TOY_TREE = {
    "thing": {"parents": []}, "animal": {"parents": ["thing"]}, "plant": {"parents": ["thing"]},
    "dog": {"parents": ["animal"]}, "cat": {"parents": ["animal"]}, "oak": {"parents": ["plant"]},
    "poodle": {"parents": ["dog"]},
}  # fmt: skip


def make(root: Path) -> None:
    """Write below ``root / "wordnet"``; a root, two kinds and the 1,000 classes, every second of one kind."""
    folder = root / "eval" / "imagenet" / "val"
    if not folder.is_dir():
        classification.imagenet(root / "eval")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    pairs = [(ROOT, kind) for kind in KINDS] + [(KINDS[i % 2], name) for i, name in enumerate(classes)]
    (root / "wordnet").mkdir(parents=True, exist_ok=True)
    (root / "wordnet" / "wordnet.is_a.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    names = {ROOT: "entity", KINDS[0]: "even", KINDS[1]: "odd"} | {name: f"class {name}" for name in classes}
    (root / "wordnet" / "words.txt").write_text("".join(f"{node}\t{name}\n" for node, name in names.items()))
