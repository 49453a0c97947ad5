r"""Triplets of sentences from sections of Wikipedia articles (docs/benchmarks/text.md).

hypvl evaluate --config wikisections \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.text.triplets import wiki_sections
from hypvl.evaluation.text.triplets import TripletAccuracy

from .common.encoding import encoding as encoding

roots = {"wikisections": "./datasets/wikisections"}
evaluate = {
    "wikisections": L(TripletAccuracy)(
        dataset=L(wiki_sections)(root="${roots.wikisections}", split="test"), encoding="${encoding}"
    )
}
