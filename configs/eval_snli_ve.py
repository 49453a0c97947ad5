r"""SNLI-VE: entailment learnt from captions, tested with images; not verified against the paper (benchmarks/text.md).

hypvl evaluate --config snli_ve \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.text.snli_ve import snli_ve
from hypvl.evaluation.probes.entailment import VisualEntailment

from .common.encoding import encoding as encoding

roots = {"snli_ve": "./datasets/snli_ve", "flickr30k": "./datasets/flickr30k"}
evaluate = {
    "snli_ve": L(VisualEntailment)(
        train=L(snli_ve)(root="${roots.snli_ve}", split="train"),
        dev=L(snli_ve)(root="${roots.snli_ve}", split="dev"),
        test=L(snli_ve)(root="${roots.snli_ve}", split="test", images="${roots.flickr30k}/flickr30k_images"),
        encoding="${encoding}",
    )
}
