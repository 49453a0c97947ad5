import math

import pytest
import torch

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.info_nce import softmax_cross_entropy
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class TestContrastiveOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return Contrastive()


class TestContrastiveOnSphere(LossContract):
    def make(self) -> LossTerm:
        return Contrastive()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestSmoothedContrastive(LossContract):
    def make(self) -> LossTerm:
        return Contrastive(label_smoothing=0.1)


class TestAugmentedContrastive(LossContract):
    """CyCLIP's in-modal augmentation: four pairs, one direction for each modality."""

    def make(self) -> LossTerm:
        return Contrastive(
            [
                ("image", "text"), ("text", "image"),
                ("image", "image:augmented_image"), ("text", "text:augmented_text"),
            ]
        )  # fmt: skip

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


def test_value_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    # row 0: -log(3/4); row 1 has two equal scores: log 2
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert softmax_cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx(expected, rel=1e-12)


def test_smoothing_by_hand() -> None:
    """Scores (log 3, 0), target 0: log 4 - 0.8 log 3 - 0.2 (log 3 + 0) / 2 = log 4 - 0.9 log 3."""
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    value = softmax_cross_entropy(logits, torch.tensor([0]), smoothing=0.2)
    assert value.item() == pytest.approx(math.log(4.0) - 0.9 * math.log(3.0), rel=1e-12)


def test_smoothing_of_equal_scores_changes_nothing_and_one_key_costs_nothing() -> None:
    equal = torch.full((2, 5), 3.0, dtype=torch.float64)
    assert softmax_cross_entropy(equal, torch.tensor([1, 4]), smoothing=0.3).item() == pytest.approx(
        math.log(5.0)
    )
    assert softmax_cross_entropy(equal[:, :1], torch.tensor([0, 0]), smoothing=0.3).item() == 0.0


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_smoothing_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing: got .*least 0 and below 1"):
        Contrastive(label_smoothing=share)


def test_clip_loss_by_hand() -> None:
    """Orthogonal pairs: each row scores (s, 0), so the loss is log(1 + exp(-s))."""
    model = GeometryOnly(Sphere(), Cosine())
    model.scorer.log_scale.data.fill_(math.log(2.0))
    eye = torch.eye(2, dtype=torch.float64)
    value = Contrastive()(context(model, {IMAGE: 5 * eye, TEXT: 0.1 * eye}))
    assert value.item() == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-9)


def test_one_direction_only() -> None:
    model = GeometryOnly(Sphere(), Cosine())
    rows = {IMAGE: torch.eye(3, dtype=torch.float64), TEXT: torch.eye(3, dtype=torch.float64)[[0, 0, 1]]}
    both = Contrastive()(context(model, rows))
    one = Contrastive([("image", "text")])(context(model, rows))
    other = Contrastive([("text", "image")])(context(model, rows))
    assert one.item() != pytest.approx(other.item())
    assert both.item() == pytest.approx((one.item() + other.item()) / 2)


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="pairs: got none"):
        Contrastive([])
    with pytest.raises(ValueError, match="'scan'"):
        Contrastive([("scan", "text")])


def test_labels_by_hand() -> None:
    """Two of three samples share a label: each of them has both keys as positives."""
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    expected = (logits.logsumexp(1) - torch.tensor([1.5, 1.5, 1.0])).mean()
    torch.testing.assert_close(softmax_cross_entropy(logits, torch.arange(3), same=same), expected)


def test_unlabelled_samples_are_their_own_only_positive() -> None:
    model = GeometryOnly(Sphere(), Cosine())
    rows = {IMAGE: random_features(5, seed=0), TEXT: random_features(5, seed=1)}
    plain = Contrastive()(context(model, rows))
    none = Contrastive(labels="labels")(context(model, rows, labels=torch.full((5,), -1)))
    torch.testing.assert_close(none, plain, rtol=1e-12, atol=0)
    some = Contrastive(labels="labels")(context(model, rows, labels=torch.tensor([0, 0, -1, -1, 4])))
    assert abs(some.item() - plain.item()) > 1e-3


def test_labels_are_asked_for() -> None:
    model = GeometryOnly(Sphere(), Cosine())
    rows = {IMAGE: random_features(3, seed=0), TEXT: random_features(3, seed=1)}
    with pytest.raises(ValueError, match="labels: got a list; expected an int64 tensor"):
        Contrastive(labels="labels")(context(model, rows, labels=[1, 2, 3]))
    with pytest.raises(KeyError, match="has no 'labels'"):
        Contrastive(labels="labels")(context(model, rows))
    with pytest.raises(ValueError, match="one label each"):
        Contrastive(labels="labels")(context(model, rows, labels=torch.zeros(2, dtype=torch.int64)))


def test_a_batch_of_one_sample_is_refused_at_the_start() -> None:
    objective = Objective({"contrastive": Contrastive()})
    objective.check_batch(2)
    with pytest.raises(
        ValueError, match=r"terms\.contrastive: batch: got 1 sample over all ranks, whose loss is 0"
    ):
        objective.check_batch(1)
    boxes = [("image:box_image", "text:box_text")]
    Objective({"boxes": Contrastive(boxes)}).check_batch(1)  # one sample may have several
