r"""Zero-shot classification on the 20 sets of the hyperbolic papers and a few more (docs/benchmarks/classification.md).

hypvl evaluate --config zero_shot_classification \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l prompt_style=subreddit
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.evaluation.zero_shot import ZeroShotClassification

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
prompt_style = "clip"
ensemble = "model"  # or normalized_mean, raw_mean, tangent_mean, score_mean
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=L(by_name.classification_set)(name=name, root="${roots.eval}", download="${download}"),
        prompts=L(by_name.classification_prompts)(name=name, style="${prompt_style}"),
        ensemble="${ensemble}",
        encoding="${encoding}",
    )
    for name in (*by_name.CLASSIFICATION_SETS, *by_name.MORE_CLASSIFICATION_SETS)
}
