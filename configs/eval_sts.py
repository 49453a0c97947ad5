r"""Semantic textual similarity: STS12 to STS16, STS-B, SICK-R, their average, stsbenchmark.tsv.gz (benchmarks/text.md).

hypvl evaluate --config sts \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l

All numbers in one entry: --only average. A text encoder trained with a head that is dropped at test: stage=trunk
"""

from .common.evaluation.sts import encoding, evaluate, roots, stage
