"""The order of a scorer of image and text together, by hand, and against the order of the embeddings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.data.transforms import Squeeze
from hypvl.datasets.composition.choices import Choice, Choices, Group, Groups
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.embedding.pair_scorer import rerank, score_inputs
from hypvl.errors import DataError, UserError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.winoground_score import CaptionGroups
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.test_foil_accuracy import choices
from tests.evaluation.test_retrieval import PLAIN, evaluate, scenes
from tests.ranks import run_ranks


class FakeScorer:
    """Scores of (colour, text) from a table; without one, the dot product that FakeModel scores by."""

    name = "fake"
    image_size = 8

    def __init__(self, table: dict[tuple[str, str], float] | None = None) -> None:
        self.table, self.model, self.training = table, FakeModel(), True
        self.scored: list[tuple[str, str]] = []
        self.image_batches: list[int] = []

    def image_states(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 8, 8) and not self.training
        self.image_batches.append(len(images))
        return images.float().mean(dim=(2, 3)) / 255.0

    def score(self, states: Tensor, texts: Sequence[str]) -> Tensor:
        pairs = [("rgb"[int(state.argmax())], text) for state, text in zip(states, texts, strict=True)]
        self.scored += pairs
        if self.table is None:
            self.model.train(False)
            return (states * self.model.encode_text(FakeTokenizer()(texts))).sum(dim=1)
        return torch.tensor([self.table[pair] for pair in pairs])

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    def train(self, mode: bool = True) -> None:
        self.training = mode


def test_rerank_by_hand() -> None:
    order = torch.tensor([[4, 2, 9, 1], [0, 1, 2, 3]])
    scores = torch.tensor([[0.0, 0.5, 0.5], [3.0, 2.0, 1.0]])
    assert rerank(order, scores, first=3).tolist() == [[2, 9, 4, 1], [0, 1, 2, 3]]  # a tie keeps its order
    assert rerank(order, scores[:, :1], first=1).tolist() == order.tolist()
    assert rerank(order[:, :2], scores[:, :2], first=5).tolist() == [[2, 4], [0, 1]]  # fewer than asked for
    with pytest.raises(ValueError, match=r"scores: got shape \(2, 3\); expected \(2, 2\)"):
        rerank(order, scores, first=2)


LINES: Any = [("b.png", BLUE, ["blue", "green"]), ("g.png", GREEN, ["a green"]), ("r.png", RED, ["red"])]


def test_the_first_items_of_both_directions_by_hand(tmp_path: Path) -> None:
    # By embeddings (see test_retrieval): "green" -> g, b, r; image g -> "green", "a green".
    table = {
        ("b", "blue"): 1.0, ("g", "blue"): 0.0, ("r", "blue"): 0.0, ("b", "green"): 0.9, ("g", "green"): 0.3,
        ("g", "a green"): 0.8, ("b", "a green"): 0.2, ("r", "red"): 1.0, ("b", "red"): 0.0, ("r", "green"): 0.1,
    }  # fmt: skip
    scorer = FakeScorer(table)
    data = scenes(tmp_path, LINES)
    result: Any = evaluate(data, rerank=2, pair_scorer=scorer)
    # Now "green" -> b first, and image g -> "a green" first: all is right at 1.
    assert result.metrics["text_to_image_recall@1"] == result.metrics["image_to_text_recall@1"] == 100.0
    assert result.items["text_top1"] == ["b.png", "b.png", "g.png", "r.png"]
    assert result.items["text_rank"] == [1, 1, 1, 1] and result.items["image_rank"] == [1, 1, 1]
    assert result.meta["rerank"] == {"first": 2, "scorer": "fake", "score": "pair"}
    assert len(scorer.scored) == len(set(scorer.scored))  # each pair once
    assert ("r", "a green") not in scorer.scored  # beyond the first two both ways
    assert scorer.training is True and scorer.image_batches == [3]
    # The embeddings give "green" 1 with g and 0 with b: their sum with the scorer is 1.3 against 0.9.
    summed: Any = evaluate(data, rerank=2, pair_scorer=FakeScorer(table), rerank_score="sum")
    assert summed.items["text_top1"] == ["b.png", "g.png", "g.png", "r.png"]
    assert summed.meta["rerank"]["score"] == "sum"
    alone: Any = evaluate(data, rerank=1, pair_scorer=FakeScorer(table))
    plain: Any = evaluate(data)
    assert alone.metrics == plain.metrics and "rerank" not in plain.meta


@pytest.mark.parametrize("first", [1, 2, 3, 50])
@pytest.mark.parametrize("folds", [1, 2])
def test_nothing_changes_where_the_scorer_is_the_contrastive_score(
    first: int, folds: int, tmp_path: Path
) -> None:
    more: Any = [*LINES, ("x.jpg", None, ["red"]), ("r2.png", RED, ["yellow", "a red"])]
    data = scenes(tmp_path, more)
    plain: Any = evaluate(data, folds=folds, depth=2)
    again: Any = evaluate(data, folds=folds, depth=2, rerank=first, pair_scorer=FakeScorer())
    assert again.metrics == plain.metrics and again.samples == plain.samples
    if first <= 2:  # else ranks beyond the depth are known
        assert again.items == plain.items


def test_the_scorer_of_the_model_is_the_default(tmp_path: Path) -> None:
    model: Any = FakeModel()
    evaluator = ZeroShotRetrieval(
        scenes(tmp_path, LINES), encoding=PLAIN, tokenizer=FakeTokenizer(), ks=(1,), rerank=3
    )
    with pytest.raises(
        UserError, match=r"rerank: the model scores images and texts by their embeddings alone"
    ):
        evaluator(model)
    model.pair_scorer = FakeScorer()
    assert evaluator(model).meta["rerank"]["scorer"] == "fake"


def test_what_a_scorer_must_give(tmp_path: Path) -> None:
    data = scenes(tmp_path, [*LINES, ("x.jpg", None, ["red"])])
    settings: Any = {"transform": lambda image: image[:, :1, :1].expand(3, 8, 8), "encoding": PLAIN}
    scored, bad = score_inputs(
        FakeScorer(), data.images, data.captions, {0: [0], 1: [], 3: [3, 0]}, **settings
    )
    assert list(scored) == [0] and scored[0] == [1.0] and [position for position, _ in bad] == [3]
    few = Encoding(batch_size=1, num_workers=0, max_bad_fraction=0.1)
    with pytest.raises(DataError, match=r"re-rank: at least 1 of 2 images cannot be read"):
        score_inputs(
            FakeScorer(), data.images, data.captions, {0: [0], 3: [3]}, **{**settings, "encoding": few}, label="re-rank"
        )  # fmt: skip
    nan = FakeScorer({("b", "blue"): float("nan")})
    with pytest.raises(UserError, match="scores: 1 of 1 in a block are NaN"):
        score_inputs(nan, data.images, data.captions, {0: [0]}, **settings)
    wrong: Any = FakeScorer()
    wrong.score = lambda states, texts: torch.zeros(len(texts), 2)
    with pytest.raises(ValueError, match=r"pair_scorer fake: gave scores of shape \(1, 2\) for 1 pairs"):
        score_inputs(wrong, data.images, data.captions, {0: [0]}, **settings)


def test_choices_and_groups_scored_together(tmp_path: Path) -> None:
    images = Images.from_files(
        [image(tmp_path / "b.png", BLUE), image(tmp_path / "r.png", RED), broken(tmp_path / "x.png")]
    )
    asked = [
        Choice(0, "a sea", ("a fire", "a sun"), "noun"),
        Choice(1, "a fire", ("a sea",), "noun"),
        Choice(2, "a fire", ("a sea",), "noun"),
    ]
    table = {
        ("b", "a sea"): 2.0,
        ("b", "a fire"): 1.0,
        ("b", "a sun"): 3.0,
        ("r", "a fire"): 0.5,
        ("r", "a sea"): 0.4,
    }
    joint = CaptionChoice(
        Choices(images, asked, ["b", "r", "x"]), encoding=PLAIN, scored_by="pair_scorer", pair_scorer=FakeScorer(table)
    )  # fmt: skip
    model: Any = FakeModel()
    result = joint(model)
    assert result.metrics["accuracy"] == pytest.approx(100 / 3)
    assert result.items["margin"] == [pytest.approx(-1.0), pytest.approx(0.1), None]
    assert result.items["best_foil"] == ["a sun", "a sea", None]
    assert result.meta["pair_scorer"] == "fake" and result.meta["unreadable"] == 1
    assert model.image_batches == model.text_batches == []  # nothing is embedded
    pairs = [
        Group(
            (0, 1), ("a sea", "a fire"), (), "one"
        ),  # b: 2 > 1; r: 0.5 > 0.4; a sea: 2 > 0.4; a fire: 0.5 < 1
        Group((0, 2), ("a sea", "a fire"), (), "two"),  # x cannot be read
    ]
    groups = CaptionGroups(
        Groups(images, pairs), encoding=PLAIN, scored_by="pair_scorer", pair_scorer=FakeScorer(table)
    )(model)
    assert groups.metrics["text_score"] == 50.0 and groups.metrics["image_score"] == 0.0
    assert groups.items["text_margin"] == [pytest.approx(0.1), None]
    assert groups.items["image_margin"] == [pytest.approx(-0.5), None]
    assert groups.meta["pair_scorer"] == "fake"
    own = CaptionChoice(Choices(images, asked, ["b", "r", "x"]), encoding=PLAIN, scored_by="pair_scorer")
    with pytest.raises(UserError, match=r"scored_by: the model scores images and texts by their embeddings"):
        own(model)


def test_choices_are_the_same_where_the_scorer_is_the_contrastive_score(tmp_path: Path) -> None:
    settings: Any = {"encoding": PLAIN, "tokenizer": FakeTokenizer(), "extra": ["auroc"]}
    data = choices(tmp_path, bad=1)
    plain = CaptionChoice(data, **settings)(FakeModel())
    together = CaptionChoice(data, **settings, scored_by="pair_scorer", pair_scorer=FakeScorer())(FakeModel())
    assert together.metrics == plain.metrics and together.items == plain.items


def _on_a_rank(folder: Path) -> Any:
    images = Images.from_files(sorted(folder.glob("*.png")))
    texts = ["red", "blue", "green"]
    scorer = FakeScorer()
    asked = {image: [image % 3, (image + 1) % 3] for image in range(len(images))}
    size = Squeeze(8)
    return score_inputs(scorer, images, texts, asked, transform=size, encoding=PLAIN), len(scorer.scored)


@pytest.mark.slow
def test_ranks_share_the_pairs(tmp_path: Path) -> None:
    for i in range(70):
        image(tmp_path / f"{i:02}.png", (RED, GREEN, BLUE)[i % 3])
    broken(tmp_path / "70.png")
    alone, pairs = _on_a_rank(tmp_path)
    assert pairs == 140 and len(alone[0]) == 70 and [position for position, _ in alone[1]] == [70]
    zero, one = run_ranks(2, _on_a_rank, tmp_path)
    assert zero[0] == one[0] == alone
    assert zero[1] + one[1] == 140 and min(zero[1], one[1]) > 0
