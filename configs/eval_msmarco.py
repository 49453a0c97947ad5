r"""MS MARCO passage retrieval: 6,980 queries (dev small), 8.8 million passages (docs/benchmarks/text.md).

hypvl evaluate --config msmarco \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l

A smaller corpus that holds every relevant passage: max_passages=100000
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.text.passages import ms_marco
from hypvl.evaluation.text.passage_retrieval import PassageRetrieval

from .common.encoding import encoding as encoding

roots = {"msmarco": "./datasets/msmarco"}
max_passages = None
evaluate = {
    "msmarco": L(PassageRetrieval)(
        dataset=L(ms_marco)(root="${roots.msmarco}", max_passages="${max_passages}"),
        encoding="${encoding}",
    )
}
