r"""Semantic textual similarity: STS12 to STS16, STS-B, SICK-R, their average, stsbenchmark.tsv.gz (benchmarks/text.md).

python scripts/evaluate.py --config configs/eval_sts.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py

All numbers in one entry: --only average. A text encoder trained with a head that is dropped at test: stage=trunk
"""

from .common.evaluation.sts import encoding, evaluate, roots, stage
