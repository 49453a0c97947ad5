"""ProtoCLIP's term: values by hand, its heads, the contract."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, View
from hypvl.losses.proto_clip import Projection, ProtoCLIP, back_translate, prototype_loss
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


def test_labels_as_targets_by_hand() -> None:
    """Scores 2 and 0: the loss of the first row is log(1 + exp(-2)), that of the second 2 more."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    value = prototype_loss(x, torch.eye(2, dtype=torch.float64), torch.tensor([0, 1]), scale=2.0)
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)) + 1)


def test_soft_targets_by_hand() -> None:
    """Two equal centroids of the teacher: half of the target for each, whatever the temperature."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    value = prototype_loss(
        x, torch.eye(2, dtype=torch.float64), torch.tensor([0]), scale=2.0,
        teacher_centroids=torch.ones(2, 3, dtype=torch.float64), target_temperature=0.01,
    )  # fmt: skip
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)) + 1)
    with pytest.raises(ValueError, match="teacher_centroids: got None"):
        prototype_loss(x, torch.eye(2).double(), torch.tensor([0]), scale=2.0, target_temperature=0.01)


def test_back_translation_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    centroids = back_translate(features, torch.tensor([0, 0, 2]), count=3)
    assert centroids.tolist() == [[0.5, 0.5], [0.0, 0.0], [4.0, 4.0]]


def test_heads_are_a_batch_norm_in_training_and_its_running_statistics_in_evaluation() -> None:
    torch.manual_seed(0)
    head = Projection(3, 2, hidden_layers=1, hidden=4).double()
    expected = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    ).double()
    for name, parameter in (("0", "linears.0"), ("1", "norms.0"), ("3", "linears.1")):
        expected.get_submodule(name).load_state_dict(head.get_submodule(parameter).state_dict())
    x = random_features(8, 3)
    for _ in range(2):
        torch.testing.assert_close(head(x), torch.nn.functional.normalize(expected(x)))
        head.update_(x)
    head.eval(), expected.eval()
    torch.testing.assert_close(head(x), torch.nn.functional.normalize(expected(x)))


def halves(rows: Tensor, *, count: int, iterations: int) -> Tensor:
    """Clusters by the sign of the first coordinate."""
    return (rows[:, 0] > 0).long() % count


def make(external: bool = False, episode: int = 8) -> ProtoCLIP:
    torch.manual_seed(0)
    term = ProtoCLIP(
        4, clusters=3, external_clusters=2, episode=episode, features=3, hidden=5,
        external="text:text@teacher" if external else None,
    ).double()  # fmt: skip
    names = ["first", "second", *(["external"] if external else [])]
    rows = {name: random_features(episode, 3, seed=i) for i, name in enumerate(names)}
    term.begin_episode_(rows, first=16, cluster=halves)
    return term


def test_an_episode_sets_labels_and_centroids() -> None:
    term = make(external=True)
    first, second, external = (random_features(8, 3, seed=i) for i in range(3))
    assert torch.equal(term.labels, torch.stack([(x[:, 0] > 0).long() for x in (first, second, external)]))
    translated = term.get_buffer("first_translated")
    torch.testing.assert_close(translated[0], first[second[:, 0] <= 0].mean(0))
    assert not translated[2].any()
    torch.testing.assert_close(term.get_buffer("second_external")[1], second[external[:, 0] > 0].mean(0))


def test_the_loss_is_that_of_the_labels_of_the_positions() -> None:
    term, x, y = make(), random_features(2, seed=5), random_features(2, seed=6)
    model = GeometryOnly(Sphere(), Cosine())
    value = term(context(model, {IMAGE: x, TEXT: y}, position=torch.tensor([21, 16])))
    unit = [torch.nn.functional.normalize(v) for v in (x, y)]
    sides = []
    for head, rows, name, other, labels in (
        (term.first_head, unit[0], "first", "second", term.labels[1]),
        (term.second_head, unit[1], "second", "first", term.labels[0]),
    ):
        sides.append(
            prototype_loss(
                head(rows), term.get_buffer(f"{name}_translated"), labels[[5, 0]], scale=1 / 0.07,
                teacher_centroids=term.get_buffer(f"{other}_centroids"), target_temperature=0.01,
            )
        )  # fmt: skip
    torch.testing.assert_close(value, torch.stack(sides).mean())


def test_samples_outside_the_episode_are_refused() -> None:
    rows = {IMAGE: random_features(1), TEXT: random_features(1)}
    for position in (15, 24):
        with pytest.raises(ValueError, match=f"got samples {position} to {position} outside the episode"):
            make()(context(GeometryOnly(Sphere(), Cosine()), rows, position=torch.tensor([position])))


class TestProtoCLIP(LossContract):
    def make(self) -> ProtoCLIP:
        return make()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"position": 16 + torch.arange(count)}


class TestProtoCLIPWithATeacher(TestProtoCLIP):
    def make(self) -> ProtoCLIP:
        return make(external=True)

    def test_a_step_does_not_ask_the_teacher(self) -> None:
        term, teacher = self.make(), View("text", "text", "teacher")
        assert term.needs == {IMAGE, TEXT} and term.episode_needs == {IMAGE, TEXT, teacher}
