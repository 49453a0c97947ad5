r"""Weighted k-nearest neighbours (k = 20, T = 0.07) over the features before the projection, as ITRA does.

hypvl evaluate --config knn \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l

By the model's own image-image score of its embeddings: similarity=model stage=embeddings
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.evaluation.probes.knn import KNNClassification

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
similarity, stage = "cosine", "trunk"
evaluate = {
    name: L(KNNClassification)(
        train=L(by_name.classification_set)(name=name, root="${roots.eval}", split="train", download="${download}"),
        validation=L(by_name.classification_set)(name=name, root="${roots.eval}", split="val", download="${download}"),
        test=L(by_name.classification_set)(name=name, root="${roots.eval}", download="${download}"),
        k=20, temperature=0.07, similarity="${similarity}", stage="${stage}", encoding="${encoding}",
    )
    for name in by_name.CLASSIFICATION_SETS
}  # fmt: skip
