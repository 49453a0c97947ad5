r"""The modality gap before and after I0T_post, and over a sweep of shifts (curves in the items of results.json).

hypvl evaluate --config modality_gap \
    --checkpoint-path checkpoints/clip_vit_b_32.pth --train-config i0t_stage1_vit_b_32
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.retrieval.coco import coco, flickr30k
from hypvl.evaluation.modality_gap import ModalityGap

from .common.encoding import encoding as encoding

roots = {"coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}
evaluate = {
    name: L(ModalityGap)(
        dataset=L(reader)(root="${roots." + name + "}"),
        deltas=[-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0],
        limit=5000,
        encoding="${encoding}",
    )
    for name, reader in (("coco", coco), ("flickr30k", flickr30k))
}
