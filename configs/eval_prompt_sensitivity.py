r"""Zero-shot accuracy over several sets of prompts: mean, spread, best and worst (docs/benchmarks/classification.md).

hypvl evaluate --config prompt_sensitivity \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.datasets.classification.prompts import prompt_sets
from hypvl.evaluation.prompt_sensitivity import PromptSensitivity

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
kind = "regimes"  # or single: each template of a set alone, with kinds=items
kinds = "metrics"  # or items: the accuracy of every prompt set is in the items only
ensemble = "model"
evaluate = {
    name: L(PromptSensitivity)(
        dataset=L(by_name.classification_set)(name=name, root="${roots.eval}", download="${download}"),
        prompt_sets=L(prompt_sets)(name=name, kind="${kind}"),
        kinds="${kinds}",
        ensemble="${ensemble}",
        encoding="${encoding}",
    )
    for name in by_name.CLASSIFICATION_SETS
}
