"""Cross entropy of class logits: an encoder whose features are one logit per class."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.losses.base import LossTerm, Model, PairContext, View, find_encoder
from hypvl.numerics import full_precision

_NONE = -1  # the label of a sample that has none


@full_precision
def class_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy over the samples of all ranks that have a label; 0 where none has.

    Args:
        logits: (B, C).
        labels: (B,) int64, 0 ... C - 1, or -1 for none.
        smoothing: e in [0, 1): the share of the target that is spread evenly over the classes.

    Returns:
        0-dim; the mean over ranks is that of one process.

    Source: the softmax cross entropy; smoothing: Szegedy et al. 2016 (arXiv 1512.00567), section 7.

    Example:
        >>> class_cross_entropy(torch.zeros(2, 4), torch.tensor([3, 0]))  # log 4
        tensor(1.3863)
    """
    total = F.cross_entropy(logits, labels, ignore_index=_NONE, label_smoothing=smoothing, reduction="sum")
    counts = distributed.gather((labels != _NONE).sum()[None].to(total.dtype))  # (W,)
    return total / counts.mean().clamp(min=1 / len(counts))


@configurable("train")
class ClassCrossEntropy(LossTerm):
    """:func:`class_cross_entropy` of the features of a view, whose head has one output per class.

    Args:
        view: Whose features are the logits.
        labels: Entry of the batch with a label of each sample, (B,) int64; -1 = none.
        label_smoothing: In [0, 1).

    Raises:
        ValueError: for labels of another shape or dtype; on a CPU for labels of no class.
    """

    rings = True

    def __init__(self, *, view: str | View, labels: str = "labels", label_smoothing: float = 0.0) -> None:
        super().__init__()
        (self.view,) = self.declare(view)
        self.labels = labels
        self.entries = frozenset({labels})
        self.label_smoothing = number("label_smoothing", label_smoothing, least=0, below=1)

    def check_classes(self, count: int, models: Mapping[str, Model]) -> None:
        """Refuse data with more classes than there are logits."""
        logits = getattr(find_encoder(models, self.view), "embed_dim", None)
        if logits is not None and logits < count:
            raise ValueError(
                f"{self.view} has {logits} logits, but the data have {count} classes; give its head "
                f"out_features={count}."
            )

    def forward(self, ctx: PairContext) -> Tensor:
        logits = ctx.features(self.view)
        labels = ctx.entry(
            self.labels, meaning="the classes of its samples", otherwise="or leave this term out"
        )
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != logits.shape[:1]:
            got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            dtype = f" of {labels.dtype}" if isinstance(labels, Tensor) else ""
            raise ValueError(
                f"{self.labels}: got {got}{dtype} for {len(logits)} samples; expected one int64 label each."
            )
        classes = logits.shape[1]
        if labels.device.type == "cpu" and bool(((labels < _NONE) | (labels >= classes)).any()):
            raise ValueError(
                f"{self.labels}: got labels from {int(labels.min())} to {int(labels.max())}, but {self.view} has "
                f"{classes} logits; expected 0 to {classes - 1}, or -1 for none."
            )
        return class_cross_entropy(logits, labels, smoothing=self.label_smoothing)
