r"""K-Means of zero-shot image embeddings against the classes: AMI, NMI, ARI (K = classes, 100 iterations, 5 starts).

hypvl evaluate --config clustering \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.evaluation.probes.clustering import KMeansClustering

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
evaluate = {
    name: L(KMeansClustering)(
        dataset=L(by_name.classification_set)(name=name, root="${roots.eval}", download="${download}"),
        stage="embeddings", rows="flat", iterations=100, restarts=5, seeds=[0, 1, 2], encoding="${encoding}",
    )
    for name in by_name.CLASSIFICATION_SETS
}  # fmt: skip
