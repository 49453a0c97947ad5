"""Cross entropy of class logits: by hand, samples without a label, wrong labels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.losses.base import IMAGE, LossTerm, MissingInputError
from hypvl.losses.class_cross_entropy import ClassCrossEntropy, class_cross_entropy
from tests.losses.contract import LossContract
from tests.losses.toy import context, random_features


class TestClassCrossEntropy(LossContract):
    def make(self) -> LossTerm:
        return ClassCrossEntropy(view="image", label_smoothing=0.1)

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"labels": torch.tensor([3, -1, 0, 1, 2, 2])[:count]}  # ranks have 2 and 3 labels


def test_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [9.0, 9.0], [0.0, 0.0]])
    value = class_cross_entropy(logits, torch.tensor([0, -1, 1]))
    assert value.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_batch_without_labels_is_no_information() -> None:
    logits = random_features(3).requires_grad_()
    value = class_cross_entropy(logits, torch.tensor([-1, -1, -1]))
    value.backward()
    assert value.item() == 0.0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4, 1]), "labels: got labels from 0 to 4, but image:image@student has 4 logits"),
        (torch.tensor([0, -2, 1]), "labels: got labels from -2 to 1"),
        (torch.tensor([0, 1]), r"labels: got shape \(2,\) of torch.int64 for 3 samples"),
        (torch.tensor([0.0, 1.0, 2.0]), "of torch.float32 for 3 samples; expected one int64 label each"),
        ([0, 1, 2], "labels: got list for 3 samples"),
    ],
)
def test_wrong_labels_are_named(labels: Any, message: str) -> None:
    ctx = context(LossContract().model(), {IMAGE: random_features(3)}, labels=labels)
    with pytest.raises(ValueError, match=message):
        ClassCrossEntropy(view="image")(ctx)


def test_missing_labels_are_named() -> None:
    with pytest.raises(MissingInputError, match="batch: has no 'classes', the classes of its samples"):
        ClassCrossEntropy(view="image", labels="classes")(
            context(LossContract().model(), {IMAGE: random_features(3)})
        )
