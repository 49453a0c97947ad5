r"""Triplets of sentences from sections of Wikipedia articles (docs/benchmarks/text.md).

python scripts/evaluate.py --config configs/eval_wikisections.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
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
