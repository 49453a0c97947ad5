r"""k-NN (k = 20, T = 0.07) on the demo's digits and shapes by the features before the projection, as eval_knn.py.

hypvl evaluate --config knn_demo --checkpoint-path output/demo_dino/checkpoint_final.pth
"""

from hypvl.config import LazyCall as L
from hypvl.datasets import demo
from hypvl.evaluation.probes.knn import KNNClassification

from .common.encoding import encoding as encoding

encoding.num_workers = 1
roots = {"demo": "./datasets/demo"}
similarity, stage = "cosine", "trunk"
evaluate = {
    f"{name}_knn": L(KNNClassification)(
        train=L(demo.demo_training_set)(name=name, root="${roots.demo}"),
        test=L(demo.demo_classification_set)(name=name, root="${roots.demo}"),
        k=20, temperature=0.07, similarity="${similarity}", stage="${stage}", encoding="${encoding}",
    )
    for name in ("digits", "scenes_shape_seen", "scenes_shape_heldout")
}  # fmt: skip
