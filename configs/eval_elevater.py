r"""ELEVATER: 20 sets x {zero_shot, few_shot_5, few_shot_20, few_shot_50, linear_probe, fine_tune}.

Data and metrics: docs/benchmarks/probes.md.

hypvl evaluate --config elevater \
    --checkpoint-path output/clip_vit_b/checkpoint_final.pth --only mnist/zero_shot,mnist/fine_tune tuning=swept
"""

from .common.evaluation.elevater import (
    encoding as encoding,
    epochs as epochs,
    evaluate as evaluate,
    predictions as predictions,
    roots as roots,
    tuning as tuning,
)
