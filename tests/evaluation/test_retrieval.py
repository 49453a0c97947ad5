"""Retrieval of colours, by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.datasets.retrieval import CaptionedImages, jsonl
from hypvl.evaluation.features import Encoding
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, picture

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
            picture(root / name, color)
    text = "\n".join(json.dumps({"image": name, "captions": captions}) for name, _, captions in lines)
    (root / "set.jsonl").write_text(text)
    return jsonl(root / "set.jsonl")


def evaluate(dataset: CaptionedImages, **settings: object) -> object:
    settings = {"encoding": PLAIN, "tokenizer": FakeTokenizer(), "ks": (1, 2)} | settings
    return ZeroShotRetrieval(dataset, **settings)(FakeModel())  # type: ignore[arg-type]


class TestContract(EvaluatorContract):
    evaluator_class = ZeroShotRetrieval

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        lines = [(f"{name}.png", color, [f"{name} one", f"{name} two"]) for name, color in COLORS.items()]
        lines += [("odd.png", RED, ["blue"])]
        # broken files take the place of a caption's picture only where the clean set has none
        lines += [(f"broken{i}.jpg", None, ["green"]) for i in range(bad)]
        return ZeroShotRetrieval(
            scenes(folder, lines),
            encoding=encoding,
            tokenizer=FakeTokenizer(),
            ks=(1, 2),  # type: ignore[arg-type]
        )


def test_recalls_and_items_by_hand(tmp_path: Path) -> None:
    dataset = scenes(
        tmp_path,
        [("b.png", BLUE, ["blue", "green"]), ("g.png", GREEN, ["a green"]), ("r.png", RED, ["red"])],
    )
    result = evaluate(dataset)
    # Texts: "blue" -> b (1); "green" -> g, then b and r tie at 0, b first (2); "a green" -> g (1); "red" -> r (1).
    # Pictures: b -> "blue" (1); g -> "green" and "a green" tie, the lower is wrong (2); r -> "red" (1).
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


def test_an_unreadable_picture_is_a_miss_both_ways(tmp_path: Path) -> None:
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


def test_pictures_without_captions_are_distractors(tmp_path: Path) -> None:
    result = evaluate(
        scenes(tmp_path, [("x.png", BLUE, []), ("b.png", BLUE, ["blue"]), ("r.png", RED, ["red"])])
    )
    # "blue" finds the distractor first (same score, lower position); the distractor is no query.
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


def test_whole_pictures_are_squeezed(tmp_path: Path) -> None:
    image = torch.zeros(3, 8, 32, dtype=torch.uint8)
    image[0, :, :8] = 255  # a quarter red, three quarters blue: a crop would lose the red end
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
    ZeroShotRetrieval(data, encoding=PLAIN, tokenizer=FakeTokenizer())(Watching())
    assert seen[0].shape == (1, 3, 8, 8)
    assert seen[0][0, 0, :, 0].min() > 200 and seen[0][0, 2, :, 7].min() > 200


def test_cut_offs_are_checked(tmp_path: Path) -> None:
    dataset = scenes(tmp_path, [("r.png", RED, ["red"])])
    for ks in ((), (0, 1)):
        with pytest.raises(ValueError, match="ks: got"):
            ZeroShotRetrieval(dataset, ks=ks)
    assert ZeroShotRetrieval(dataset, ks=(10, 5)).main_metric == "text_to_image_recall@5"
