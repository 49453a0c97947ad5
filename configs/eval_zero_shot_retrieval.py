r"""Zero-shot retrieval on COCO val2017 and the Karpathy test split of Flickr30k (docs/evaluation.md).

python scripts/evaluate.py --config configs/eval_zero_shot_retrieval.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from hypvl.config import LazyCall as L
from hypvl.evaluation.datasets.retrieval import coco, flickr30k
from hypvl.evaluation.retrieval import ZeroShotRetrieval

from .common.encoding import encoding as encoding

roots = {"coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}
evaluate = {
    name: L(ZeroShotRetrieval)(
        dataset=L(reader)(root="${roots." + name + "}"), ks=[1, 5, 10], encoding="${encoding}"
    )
    for name, reader in (("coco", coco), ("flickr30k", flickr30k))
}
