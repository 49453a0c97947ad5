r"""DataComp's 38 tasks, named as its eval_results.jsonl names them (docs/benchmarks/classification.md).

hypvl evaluate --config datacomp \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from .common.evaluation.datacomp import download, encoding, ensemble, evaluate, groups, roots, template
