r"""Linear probes on the 20 zero-shot sets; few-shot by `shots=5 seeds=[0,1,2]` (docs/benchmarks/probes.md).

hypvl evaluate --config linprobe_classification \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification import by_name
from hypvl.evaluation.probes.linear_probe import LinearProbe

from .common.encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
shots = None
seeds = [0]
evaluate = {
    name: L(LinearProbe)(
        **{
            part: L(by_name.classification_set)(
                name=name, root="${roots.eval}", split=split, download="${download}"
            )
            for part, split in (("train", "train"), ("validation", "val"), ("test", "test"))
        },
        shots="${shots}",
        seeds="${seeds}",
        encoding="${encoding}",
    )
    for name in by_name.CLASSIFICATION_SETS
}
