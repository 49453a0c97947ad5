"""Images with several labels: VOC 2007, COCO, and the composed scenes of ComCo and SimCo."""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification.multi_label import coco_labels, label_lists, voc2007
from hypvl.evaluation.multi_label import MultiLabelClassification

from ..encoding import encoding as encoding

roots = {
    "voc2007": "./datasets/voc2007",
    "coco": "./datasets/coco",
    "comco": "./datasets/comco",
    "simco": "./datasets/simco",
}
ensemble = "score_mean"  # or model, normalized_mean, raw_mean, tangent_mean
_sets = {
    "voc2007": L(voc2007)(root="${roots.voc2007}", split="test"),
    "coco": L(coco_labels)(root="${roots.coco}", split="val2017"),
    "comco": L(label_lists)(path="${roots.comco}/annotations.jsonl"),
    "simco": L(label_lists)(path="${roots.simco}/annotations.jsonl"),
}
evaluate = {
    name: L(MultiLabelClassification)(
        dataset=dataset, prompts=None, ensemble="${ensemble}", encoding="${encoding}"
    )
    for name, dataset in _sets.items()
}
