r"""I0T's zero-shot classification: CIFAR-100 (raw mean of 18 prompts) and Birdsnap (docs/benchmarks/classification.md).

hypvl evaluate --config i0t_classification \
    --checkpoint-path output/i0t_async/checkpoint_final.pth --standardize transductive
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.datasets.classification.trees import i0t_classification_set
from hypvl.evaluation.zero_shot import ZeroShotClassification

from .common.encoding import encoding as encoding

roots = {"i0t": "./datasets/i0t"}
download = True
_ways = {
    "cifar100": ("raw_mean", "top1_accuracy"),
    "birdsnap": ("normalized_mean", "mean_per_class_accuracy"),
}
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=L(i0t_classification_set)(name=name, root="${roots.i0t}", download="${download}"),
        prompts=L(by_name.classification_prompts)(name=name),
        ensemble=ensemble,
        metric=metric,
        encoding="${encoding}",
    )
    for name, (ensemble, metric) in _ways.items()
}
