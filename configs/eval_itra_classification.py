r"""ITRA's zero-shot classification over its own folder tree, raw mean of the prompts.

Data and metrics: docs/benchmarks/classification.md.

hypvl evaluate --config itra_classification \
    --checkpoint-path output/clip_vit_b/checkpoint_final.pth
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification.trees import ITRA_SETS, itra_set
from hypvl.evaluation.zero_shot import ZeroShotClassification

from .common.encoding import encoding as encoding

roots = {"itra": "./datasets/itra"}
_lists = [f"testlist0{i}" for i in (1, 2, 3)]
_sets = {name: (name, None) for name in ITRA_SETS if name != "ucf101"}
_sets |= {f"ucf101_{split}": ("ucf101", split) for split in _lists}
evaluate = {
    key: L(ZeroShotClassification)(
        dataset=L(itra_set)(name=name, root="${roots.itra}", split=split),
        ensemble="raw_mean",
        metric="mean_per_class_accuracy" if name == "flowers102" else "top1_accuracy",
        encoding="${encoding}",
    )
    for key, (name, split) in _sets.items()
}
