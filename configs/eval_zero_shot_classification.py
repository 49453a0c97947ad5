r"""Zero-shot classification; data sets below datasets/eval (docs/evaluation.md).

python scripts/evaluate.py --config configs/eval_zero_shot_classification.py \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
"""

from hypvl.config import LazyCall as L
from hypvl.evaluation.datasets import catalog
from hypvl.evaluation.zero_shot import ZeroShotClassification

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=L(catalog.classification_set)(name=name, root="${roots.eval}"),
        prompts=L(catalog.classification_prompts)(name=name),
        encoding="${encoding}",
    )
    for name in catalog.CLASSIFICATION_SETS
}
