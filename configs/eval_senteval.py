r"""SentEval's transfer tasks: logistic regression on frozen sentence features (docs/benchmarks/text.md).

hypvl evaluate --config senteval \
    --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l

Features before the projection head: stage=trunk
"""

from hypvl.config import LazyCall as L
from hypvl.datasets.text.senteval import TASKS, senteval_task
from hypvl.evaluation.probes.sentences import SentenceClassification

from .common.encoding import encoding as encoding

roots = {"senteval": "./datasets/senteval"}
stage, folds = "features", 10
evaluate = {
    name: L(SentenceClassification)(
        task=L(senteval_task)(root="${roots.senteval}", name=name),
        folds="${folds}",
        stage="${stage}",
        encoding="${encoding}",
    )
    for name in TASKS
}
