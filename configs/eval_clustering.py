r"""K-Means of zero-shot image embeddings against the classes: AMI, NMI, ARI (K = classes, 100 iterations, 5 starts).

python scripts/evaluate.py --config configs/eval_clustering.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
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
