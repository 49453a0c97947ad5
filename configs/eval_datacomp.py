r"""DataComp's 38 tasks, named as its eval_results.jsonl names them (docs/benchmarks/classification.md).

python scripts/evaluate.py --config configs/eval_datacomp.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from .common.evaluation.datacomp import download, encoding, ensemble, evaluate, groups, roots, template
