"""Semantic textual similarity: seven sets, their average, and STS-B as sentence-transformers ships it."""

from hypvl.config import LazyCall as L
from hypvl.datasets.text import pairs
from hypvl.evaluation.text.sentence_similarity import SentenceSimilarity, SentenceSimilarityAverage

from ..encoding import encoding as encoding

roots = {"senteval": "./datasets/senteval", "stsbenchmark": "./datasets/stsbenchmark"}
stage = "embeddings"
_sets = {
    **{f"sts{year - 2000}": L(pairs.sts)(root="${roots.senteval}", year=year) for year in range(2012, 2017)},
    "sts_b": L(pairs.sts_benchmark)(root="${roots.senteval}", split="test"),
    "sick_r": L(pairs.sick_relatedness)(root="${roots.senteval}", split="test"),
}
_table = {
    f"stsbenchmark_{split}": L(pairs.sts_benchmark_table)(
        path="${roots.stsbenchmark}/stsbenchmark.tsv.gz", split=split
    )
    for split in ("dev", "test")
}
evaluate = {
    **{
        name: L(SentenceSimilarity)(dataset=dataset, stage="${stage}", encoding="${encoding}")
        for name, dataset in (_sets | _table).items()
    },
    "average": L(SentenceSimilarityAverage)(datasets=_sets, stage="${stage}", encoding="${encoding}"),
}
