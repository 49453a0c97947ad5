"""Retrieval of colours, by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.data.tokenizer import Tokenizer as ClipTokenizer
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.positives import Positives
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image as pil_image

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)
COLORS = {"blue": BLUE, "green": GREEN, "red": RED}


def scenes(
    root: Path, lines: Sequence[tuple[str, tuple[int, int, int] | None, list[str]]]
) -> CaptionedImages:
    """(name, colour or None for a broken file, captions)."""
    for name, color, _ in lines:
        if color is None:
            broken(root / name)
        else:
            pil_image(root / name, color)
    text = "\n".join(json.dumps({"image": name, "captions": captions}) for name, _, captions in lines)
    (root / "set.jsonl").write_text(text)
    return table(root / "set.jsonl")


def evaluate(dataset: CaptionedImages, **settings: object) -> object:
    settings = {"encoding": PLAIN, "tokenizer": FakeTokenizer(), "ks": (1, 2)} | settings
    return ZeroShotRetrieval(dataset, **settings)(FakeModel())  # type: ignore[arg-type]


class TestContract(EvaluatorContract):
    evaluator_class = ZeroShotRetrieval

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        lines = [(f"{name}.png", color, [f"{name} one", f"{name} two"]) for name, color in COLORS.items()]
        lines += [("odd.png", RED, ["blue"])]
        # broken files take the place of a caption's image only where the clean set has none
        lines += [(f"broken{i}.jpg", None, ["green"]) for i in range(bad)]
        data = scenes(folder, lines)  # type: ignore[arg-type]
        return self.evaluator_class(data, encoding=encoding, tokenizer=FakeTokenizer(), ks=(1, 2))  # type: ignore[call-arg]


def test_recalls_and_items_by_hand(tmp_path: Path) -> None:
    dataset = scenes(
        tmp_path,
        [("b.png", BLUE, ["blue", "green"]), ("g.png", GREEN, ["a green"]), ("r.png", RED, ["red"])],
    )
    result = evaluate(dataset)
    # Texts: "blue" -> b (1); "green" -> g, then b and r tie at 0, b first (2); "a green" -> g (1); "red" -> r (1).
    # Images: b -> "blue" (1); g -> "green" and "a green" tie, the lower is wrong (2); r -> "red" (1).
    assert result.metrics == pytest.approx(  # type: ignore[attr-defined]
        {
            "text_to_image_recall@1": 75.0,
            "text_to_image_recall@1_chance": 100 / 3,
            "text_to_image_recall@2": 100.0,
            "text_to_image_recall@2_chance": 200 / 3,
            "image_to_text_recall@1": 200 / 3,
            "image_to_text_recall@1_chance": 100 * (2 / 4 + 1 / 4 + 1 / 4) / 3,
            "image_to_text_recall@2": 100.0,
            # 2 of 4 right, 2 drawn: 1 - 1 / 6; 1 of 4: 1 / 2.
            "image_to_text_recall@2_chance": 100 * (5 / 6 + 1 / 2 + 1 / 2) / 3,
            "mean_recall": (75 + 100 + 200 / 3 + 100) / 4,
            "mean_recall_chance": (100 / 3 + 200 / 3 + 100 / 3 + 100 * (11 / 6) / 3) / 4,
            "text_to_image_median_rank": 1.0,
            "image_to_text_median_rank": 1.0,
        }
    )
    assert result.items == {  # type: ignore[attr-defined]
        "text_key": [0, 1, 2, 3],
        "text_image": ["b.png", "b.png", "g.png", "r.png"],
        "text_rank": [1, 2, 1, 1],
        "text_top1": ["b.png", "g.png", "g.png", "r.png"],
        "image_key": ["b.png", "g.png", "r.png"],
        "image_rank": [1, 2, 1],
        "image_top1": [0, 1, 3],
    }


def test_an_unreadable_image_is_a_miss_both_ways(tmp_path: Path) -> None:
    result = evaluate(
        scenes(
            tmp_path,
            [("lost.jpg", None, ["blue"]), ("g.png", GREEN, ["green"]), ("r.png", RED, ["red"])],
        )
    )
    assert result.metrics["text_to_image_recall@2"] == pytest.approx(200 / 3)  # type: ignore[attr-defined]
    assert result.metrics["image_to_text_recall@2"] == pytest.approx(200 / 3)  # type: ignore[attr-defined]
    assert result.items["text_rank"] == [None, 1, 1]  # type: ignore[attr-defined]
    assert result.items["text_top1"] == ["g.png", "g.png", "r.png"]  # type: ignore[attr-defined]
    assert result.items["image_rank"] == [None, 1, 1]  # type: ignore[attr-defined]
    assert result.items["image_top1"] == [None, 1, 2]  # type: ignore[attr-defined]


def test_images_without_captions_are_distractors(tmp_path: Path) -> None:
    result = evaluate(
        scenes(tmp_path, [("x.png", BLUE, []), ("b.png", BLUE, ["blue"]), ("r.png", RED, ["red"])])
    )
    # "blue" finds the distractor first (same score, lower position); the distractor is not a query.
    assert result.items["text_rank"] == [2, 1]  # type: ignore[attr-defined]
    assert result.items["image_key"] == ["b.png", "r.png"]  # type: ignore[attr-defined]
    assert result.metrics["text_to_image_recall@1_chance"] == pytest.approx(100 / 3)  # type: ignore[attr-defined]
    assert result.meta["images_without_captions"] == 1  # type: ignore[attr-defined]


def test_chunks_do_not_matter_and_depth_limits_ranks(tmp_path: Path) -> None:
    dataset = scenes(
        tmp_path,
        [
            ("r.png", RED, ["blue"]),
            ("g.png", GREEN, ["green"]),
            ("b.png", BLUE, ["red"]),
            ("b2.png", BLUE, ["blue"]),
        ],
    )
    whole = evaluate(dataset)
    small = evaluate(dataset, query_chunk=1, key_chunk=2)
    assert small.metrics == whole.metrics and small.items == whole.items  # type: ignore[attr-defined]
    assert whole.items["text_rank"] == [3, 1, 3, 2]  # type: ignore[attr-defined]
    shallow = evaluate(dataset, depth=2)
    assert shallow.items["text_rank"] == [None, 1, None, 2]  # type: ignore[attr-defined]
    assert shallow.metrics == whole.metrics  # type: ignore[attr-defined]


@pytest.mark.parametrize("resize", ["squeeze", "crop"])
def test_images_are_squeezed_or_cropped(resize: str) -> None:
    image = torch.zeros(3, 8, 32, dtype=torch.uint8)
    image[0, :, :8] = 255  # a quarter red, three quarters blue: a crop loses the red end
    image[2, :, 8:] = 255

    class One:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Tensor:
            return image

    seen = []

    class Watching(FakeModel):
        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            seen.append(images)
            return super().encode_image(images, stage)

    data = CaptionedImages(One(), ["red"], [0], keys=["x"])
    evaluator = ZeroShotRetrieval(data, encoding=PLAIN, tokenizer=FakeTokenizer(), resize=resize)  # type: ignore[arg-type]
    assert evaluator(Watching()).meta["resize"] == resize
    assert seen[0].shape == (1, 3, 8, 8)
    red_end = seen[0][0, 0, :, 0]
    assert red_end.min() > 200 if resize == "squeeze" else red_end.max() == 0
    assert seen[0][0, 2, :, 7].min() > 200
    with pytest.raises(ValueError, match="resize: got 'pad'"):
        ZeroShotRetrieval(data, resize="pad")  # type: ignore[arg-type]


def test_scores_get_the_modalities_of_queries_and_keys(tmp_path: Path) -> None:
    class Tagged(FakeModel):
        """A fourth coordinate: 1 for images, 0 for texts."""

        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            return torch.nn.functional.pad(super().encode_image(images, stage), (0, 1), value=1.0)

        def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
            return torch.nn.functional.pad(super().encode_text(tokens, stage), (0, 1))

        def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
            for rows, modality in ((query, query_modality), (key, key_modality)):
                assert bool((rows[:, 3] == (modality == "image")).all())
            return super().scores(query, key, query_modality=query_modality, key_modality=key_modality)

    # Depth 1, so that the search for exact ranks is told, too.
    dataset = scenes(tmp_path, [("r.png", RED, ["green"]), ("g.png", GREEN, ["red"])])
    result = ZeroShotRetrieval(dataset, encoding=PLAIN, tokenizer=FakeTokenizer(), ks=(1,), depth=1)(Tagged())
    assert result.metrics["text_to_image_median_rank"] == result.metrics["image_to_text_median_rank"] == 2.0


def test_cut_offs_are_checked(tmp_path: Path) -> None:
    dataset = scenes(tmp_path, [("r.png", RED, ["red"])])
    for ks in ((), (0, 1)):
        with pytest.raises(ValueError, match="ks: got"):
            ZeroShotRetrieval(dataset, ks=ks)
    assert ZeroShotRetrieval(dataset, metric="mean_recall").main_metric == "mean_recall"
    with pytest.raises(ValueError, match="metric: got 'recall'"):
        ZeroShotRetrieval(dataset, metric="recall")
    assert ZeroShotRetrieval(dataset, ks=(10, 5)).main_metric == "text_to_image_recall@5"


def test_samples_are_the_hits_of_the_queries(tmp_path: Path) -> None:
    result = evaluate(
        scenes(
            tmp_path,
            [("b.png", BLUE, ["blue", "green"]), ("lost.jpg", None, ["red"]), ("g.png", GREEN, ["green"])],
        )
    )
    hits = {
        "text_to_image_recall@1": [100.0, 0.0, 0.0, 100.0],
        "text_to_image_recall@2": [100.0, 100.0, 0.0, 100.0],
        # b -> "blue"; lost cannot be read; g -> its own "green" ties with that of b, which comes first
        "image_to_text_recall@1": [100.0, 0.0, 0.0],
        "image_to_text_recall@2": [100.0, 0.0, 100.0],
    }
    assert {name: result.samples[name] for name in hits} == hits  # type: ignore[attr-defined]


def test_median_ranks_are_exact_beyond_the_depth(tmp_path: Path) -> None:
    # Nine images, of which the first eight win against the last, for whose colour all texts ask.
    lines = [(f"{i}.png", RED, ["unseen"]) for i in range(8)] + [("9.png", (255, 1, 0), ["red"] * 5)]
    for settings in ({}, {"depth": 2}, {"depth": 2, "query_chunk": 2, "key_chunk": 3}):
        result = evaluate(scenes(tmp_path, lines), **settings)  # type: ignore[arg-type]
        # "unseen" scores 0 with every image: ranks 1 … 8; "red" five times ties everywhere: rank 9.
        assert result.metrics["text_to_image_median_rank"] == 7.0  # type: ignore[attr-defined]
        # Images 0 … 7 rank the five "red" first, then "unseen" in order; the last has rank 1.
        assert result.metrics["image_to_text_median_rank"] == 9.0  # type: ignore[attr-defined]


def test_an_unreadable_image_is_ranked_last(tmp_path: Path) -> None:
    lines = [("lost.jpg", None, ["blue"]), ("g.png", GREEN, ["green"]), ("r.png", RED, ["red", "red"])]
    metrics = evaluate(scenes(tmp_path, lines)).metrics  # type: ignore[attr-defined]
    assert metrics["text_to_image_median_rank"] == 1.0
    lines = [
        ("lost.jpg", None, ["blue"] * 4),
        ("g.png", GREEN, ["green"]),
        ("h.jpg", GREEN, []),
        ("r.png", RED, ["red"]),
    ]
    metrics = evaluate(scenes(tmp_path, lines)).metrics  # type: ignore[attr-defined]
    assert metrics["text_to_image_median_rank"] == 4.0  # of four images
    lines = [("lost.jpg", None, ["blue"]), ("lost2.jpg", None, ["green"]), ("r.png", RED, ["red"])]
    spoiled = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.9)
    metrics = evaluate(scenes(tmp_path, lines), encoding=spoiled).metrics  # type: ignore[attr-defined]
    assert metrics["image_to_text_median_rank"] == 3.0  # of three captions


def test_folds_are_galleries_of_their_own(tmp_path: Path) -> None:
    # As a whole "red" would find a.png; in its own fold it finds c.png. The third fold has three texts.
    lines = [
        ("a.png", RED, ["green"]),
        ("b.png", GREEN, ["green"]),
        ("c.png", RED, ["red"]),
        ("d.png", BLUE, ["blue"]),
        ("e.png", BLUE, ["red", "red"]),
        ("f.png", RED, ["blue"]),
    ]
    result = evaluate(scenes(tmp_path, lines), folds=3, ks=(1,))
    # Text to image: 1 of 2, 2 of 2, 0 of 3. Image to text: the two "green" tie for a, which scores 0 with both, and
    # its own comes first; b finds that of a first: 1 of 2; then 2 of 2; then 0 of 2.
    assert result.metrics["text_to_image_recall@1"] == pytest.approx(50.0)  # type: ignore[attr-defined]
    assert result.metrics["image_to_text_recall@1"] == pytest.approx(50.0)  # type: ignore[attr-defined]
    assert result.metrics["text_to_image_recall@1_chance"] == pytest.approx(50.0)  # type: ignore[attr-defined]
    assert result.metrics["text_to_image_median_rank"] == pytest.approx((1.5 + 1 + 2) / 3)  # type: ignore[attr-defined]
    hits = result.samples["text_to_image_recall@1"]  # type: ignore[attr-defined]
    assert hits == [0.0, 100.0, 100.0, 100.0, 0.0, 0.0, 0.0]
    # A mean over folds: its interval is drawn within each, not across them.
    assert result.strata["text_to_image_recall@1"] == [0, 0, 1, 1, 2, 2, 2]  # type: ignore[attr-defined]
    assert result.strata["image_to_text_recall@1"] == [0, 0, 1, 1, 2, 2]  # type: ignore[attr-defined]
    assert result.items["text_image"] == ["a.png", "b.png", "c.png", "d.png", "e.png", "e.png", "f.png"]  # type: ignore[attr-defined]
    assert result.items["text_top1"][2] == "c.png"  # type: ignore[attr-defined]
    assert result.items["image_top1"] == [0, 0, 2, 3, 6, 4]  # type: ignore[attr-defined]
    assert result.meta["fold_images"] == [2, 2, 2]  # type: ignore[attr-defined]


def test_one_fold_is_the_whole(tmp_path: Path) -> None:
    dataset = scenes(tmp_path, [("r.png", RED, ["red"]), ("b.png", BLUE, ["blue", "red"])])
    assert evaluate(dataset, folds=1).metrics == evaluate(dataset).metrics  # type: ignore[attr-defined]
    assert evaluate(dataset).strata == {}  # type: ignore[attr-defined]
    for folds in (0, 3):
        with pytest.raises(ValueError, match=f"folds: got {folds}; expected 1 … 2"):
            evaluate(dataset, folds=folds)
    alone = scenes(tmp_path, [("r.png", RED, ["red"]), ("b.png", BLUE, [])])
    with pytest.raises(DataError, match="fold of the images 1 … 1: has no captions"):
        evaluate(alone, folds=2)


class TestFurtherPositives(EvaluatorContract):
    evaluator_class = ZeroShotRetrieval

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        lines = [
            ("a.png", RED, ["red"]),
            ("b.png", GREEN, ["green"]),
            ("c.png", RED, ["red too"]),
            ("d.png", BLUE, ["x"]),
        ]
        lines += [(f"broken{i}.jpg", None, ["green"]) for i in range(bad)]  # type: ignore[list-item]
        data = scenes(folder, lines)
        return self.evaluator(data, encoding=encoding)

    def evaluator(self, data: CaptionedImages, **settings: object) -> ZeroShotRetrieval:
        data.image_ids = [key.partition(".")[0] for key in data.keys]
        data.caption_ids = [str(i) for i in range(len(data.captions))]
        positives = Positives(
            image_to_text={"a": frozenset({"0", "2", "99"}), "b": frozenset({"1"})},
            text_to_image={"2": frozenset({"a", "c"}), "1": frozenset({"b", "d"})},
            source="mine",
        )
        settings = {
            "encoding": PLAIN,
            "tokenizer": FakeTokenizer(),
            "ks": (1, 2),
            "positives": positives,
        } | settings
        return ZeroShotRetrieval(data, **settings)  # type: ignore[arg-type]

    def test_by_hand(self, tmp_path: Path) -> None:
        evaluator = self.make(tmp_path)
        result = evaluator(self.model())
        assert evaluator.main_metric == "text_to_image_map@r"
        # "red too" finds a, c: all right. "green" finds b, then a, c, d tie: a comes first, d is missed.
        assert result.metrics["text_to_image_map@r"] == pytest.approx((100 + 50) / 2)
        assert result.metrics["text_to_image_r_precision"] == pytest.approx((100 + 50) / 2)
        assert result.metrics["text_to_image_positive_recall@1"] == 100.0
        # Image a finds texts 0, 2 of its 0, 2 and one outside the gallery; b finds its own.
        assert result.metrics["image_to_text_r_precision"] == pytest.approx((200 / 3 + 100) / 2)
        assert result.metrics["image_to_text_map@r"] == pytest.approx((200 / 3 + 100) / 2)
        assert result.samples["image_to_text_map@r"] == pytest.approx([200 / 3, 100])
        # Two right ones among four: chance 2 / 4, at K = 1 as in the first R; b one of four.
        assert result.metrics["text_to_image_r_precision_chance"] == 50.0
        assert result.metrics["image_to_text_positive_recall@1_chance"] == pytest.approx((50 + 25) / 2)
        assert result.meta["positives"] == {
            "source": "mine",
            "text_to_image_queries": 2,
            "image_to_text_queries": 2,
            "outside_the_gallery": 1,
        }
        # The published pairs stand beside them: "red too" finds a before its own c.
        assert result.metrics["text_to_image_recall@1"] == 50.0

    def test_search_results_are_as_long_as_the_most_right_items(self, tmp_path: Path) -> None:
        data = scenes(
            tmp_path,
            [
                ("a.png", RED, ["red"]),
                ("b.png", BLUE, ["blue"]),
                ("c.png", RED, ["red"]),
                ("d.png", RED, ["x"]),
            ],
        )
        result = self.evaluator(data, ks=(1,), depth=1)(self.model())
        assert result.metrics["text_to_image_map@r"] == pytest.approx((100 + 50) / 2)

    def test_an_unreadable_image_is_a_miss_of_further_positives(self, tmp_path: Path) -> None:
        data = scenes(
            tmp_path,
            [
                ("a.png", None, ["red"]),
                ("b.png", GREEN, ["green"]),
                ("c.png", RED, ["red"]),
                ("d.png", BLUE, ["x"]),
            ],
        )
        metrics = self.evaluator(data)(self.model()).metrics
        assert metrics["image_to_text_map@r"] == 50.0
        assert metrics["text_to_image_map@r"] == pytest.approx((50 + 50) / 2)

    def test_positives_that_do_not_fit_the_set_are_refused(self, tmp_path: Path) -> None:
        lines = [(f"{name}.png", RED, ["red"]) for name in "abcd"]
        data = scenes(tmp_path, lines)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="folds: got 2 with positives"):
            self.evaluator(data, folds=2)
        with pytest.raises(DataError, match=r"mine: 1 of its 2 captions, such as 2, are not in the data set"):
            self.evaluator(scenes(tmp_path, lines[:2]))  # type: ignore[arg-type]
        positives = Positives({}, {}, source="mine")
        with pytest.raises(DataError, match="mine: names images by ids, but the data set has no image_ids"):
            ZeroShotRetrieval(scenes(tmp_path, lines), positives=positives)  # type: ignore[arg-type]


def test_truncated_captions_are_counted_with_a_warning(tmp_path: Path) -> None:
    dataset = scenes(
        tmp_path, [("r.png", RED, ["a red door", "red " * 6, "red"]), ("b.png", BLUE, ["blue " * 5])]
    )
    short, long = FakeModel(), FakeModel()
    long.context_length = 8

    class Clip(ClipTokenizer):
        """Ids of the fake model for the real tokenizer's texts."""

        def __call__(self, texts: str | Sequence[str]) -> Tensor:
            return FakeTokenizer()(list(texts))

    def meta(model: FakeModel) -> dict[str, object]:
        return ZeroShotRetrieval(dataset, encoding=PLAIN, tokenizer=Clip(model.context_length))(model).meta

    # Start, five words, end: seven ids. Six words are one too many for a context of 7.
    output = meta(short)
    assert (output["context_length"], output["captions_cut"], output["captions_cut_percent"]) == (7, 1, 25.0)
    assert output["warnings"] == [
        "1 of 4 captions (25.0 %) are longer than the model's context of 7 tokens and were cut: "
        "their ends do not count."
    ]
    assert "warnings" not in meta(long) and meta(long)["captions_cut"] == 0
    unknown = ZeroShotRetrieval(dataset, encoding=PLAIN, tokenizer=FakeTokenizer())(short).meta
    assert unknown["captions_cut"] is None and "warnings" not in unknown
