r"""Is the geometry doing any work? Numbers and a verdict (scripts/audit.py prints them as sentences).

python scripts/evaluate.py --config configs/eval_geometry_audit.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.retrieval.coco import coco, flickr30k
from hypvl.evaluation.geometry_audit import GeometryAudit

from .common.encoding import encoding as encoding

roots = {"coco": "./datasets/coco", "flickr30k": "./datasets/flickr30k"}
evaluate = {
    name: L(GeometryAudit)(
        dataset=L(reader)(root="${roots." + name + "}"),
        limit=5000,
        sample=200,
        aperture_factor=1.0,
        rounds=200,
        encoding="${encoding}",
    )
    for name, reader in (("coco", coco), ("flickr30k", flickr30k))
}
