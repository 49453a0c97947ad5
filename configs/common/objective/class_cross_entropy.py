"""Cross entropy of class logits: the image head has one output for each class."""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.class_cross_entropy import ClassCrossEntropy

objective = L(Objective)(
    terms=dict(
        classes=L(ClassCrossEntropy)(view="image", labels="labels", label_smoothing=0.0),
    ),
    weights=dict(classes=1.0),
)
