r"""Is the geometry doing any work? Numbers and a verdict (hypvl audit prints them as sentences).

hypvl evaluate --config geometry_audit \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
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
