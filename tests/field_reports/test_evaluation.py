"""Numbers that other evaluations get wrong."""

import json
from pathlib import Path

import pytest
import torch

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.classification.table import LabelledTable
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.coco import coco_format
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.metrics.ranking import label_ranks, mean_per_class_accuracy, rank_keys
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, image
from tests.metrics.composed import retrieval_recall, topk_accuracy


def encoding(batch_size: int = 4) -> Encoding:
    return Encoding(batch_size=batch_size, num_workers=0, progress=False)


def classify(dataset: ImageFolderSet, **settings: object) -> EvaluationResult:
    given = {"prompts": ["{}"], "encoding": encoding(), "tokenizer": FakeTokenizer()} | settings
    return ZeroShotClassification(dataset, **given)(FakeModel())  # type: ignore[arg-type]


def retrieve(dataset: CaptionedImages, **settings: object) -> EvaluationResult:
    given = {"encoding": encoding(), "tokenizer": FakeTokenizer(), "ks": (1, 2)} | settings
    return ZeroShotRetrieval(dataset, **given)(FakeModel())  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_a_batch_that_does_not_divide_the_set(tmp_path: Path, batch_size: int) -> None:
    """open_clip: averages over batches weigh a short last batch too much; no batch size may change a number."""
    for i, color in enumerate((RED, RED, RED, BLUE, GREEN)):  # the last two lie in the wrong folder
        image(tmp_path / "red" / f"{i}.png", color)
    image(tmp_path / "blue" / "0.png", BLUE)
    (tmp_path / "green").mkdir()
    result = classify(ImageFolderSet(tmp_path), encoding=encoding(batch_size))
    assert result.metrics["top1_accuracy"] == pytest.approx(100 * 4 / 6)
    assert result.metrics["mean_per_class_accuracy"] == pytest.approx(100 * (1 + 3 / 5) / 2)
    assert result.items["key"] == ["blue/0.png", *(f"red/{i}.png" for i in range(5))]


def test_fewer_classes_than_k(tmp_path: Path) -> None:
    """open_clip: top-5 of a set of two classes is an index error; where k says nothing it must be left out."""
    image(tmp_path / "red" / "0.png", RED)
    image(tmp_path / "blue" / "0.png", BLUE)
    result = classify(ImageFolderSet(tmp_path))
    assert "top5_accuracy" not in result.metrics
    assert result.metrics["top1_accuracy"] == 100.0
    scores = torch.tensor([[0.1, 0.9]])
    assert topk_accuracy(scores, torch.tensor([0]), k=5) == 100.0


def test_one_class_only(tmp_path: Path) -> None:
    """timm: a set of one class loses an axis on the way and fails; all of it is right, by chance too."""
    image(tmp_path / "red" / "0.png", BLUE)
    result = classify(ImageFolderSet(tmp_path))
    assert result.metrics["mean_per_class_accuracy"] == 100.0
    assert result.metrics["mean_per_class_accuracy_chance"] == 100.0
    assert result.items["predicted"] == [0]


def test_class_names_with_underscores(tmp_path: Path) -> None:
    """CLIP: prompts of folders such as `fire_truck` contain the underscore; they are words, given names stay."""
    image(tmp_path / "dark_red" / "0.png", RED)
    assert ImageFolderSet(tmp_path).classes == ["dark red"]
    assert ImageFolderSet(tmp_path, class_names=["dark_red"]).classes == ["dark_red"]


def test_label_numbers_with_gaps(tmp_path: Path) -> None:
    """ELEVATER: labels 0, 2 of three classes are renumbered 0, 1, and all names shift; numbers must stay numbers."""
    for name, color in (("a", RED), ("b", BLUE)):
        image(tmp_path / f"{name}.png", color)
    lines = [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 2}]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = LabelledTable(tmp_path / "set.jsonl", classes=["red", "green", "blue"])
    assert dataset.labels == [0, 2]
    result = classify(dataset)  # type: ignore[arg-type]
    assert result.items["predicted"] == [0, 2]
    assert result.metrics["mean_per_class_accuracy"] == 100.0
    assert result.meta["classes_without_images"] == [1]


def test_equal_scores_are_no_success() -> None:
    """open_clip: a collapsed model gets 100 % where ties count as hits; ties must go to the lower index."""
    same = torch.zeros(4, 4)
    assert label_ranks(same, torch.arange(4)).tolist() == [1, 2, 3, 4]
    assert topk_accuracy(same, torch.arange(4)) == 25.0
    assert retrieval_recall(same, [[0], [1], [2], [3]], ks=(1, 2)) == {1: 25.0, 2: 50.0}
    assert rank_keys(same, 2).tolist() == [[0, 1]] * 4
    assert mean_per_class_accuracy([0, 0, 0, 0], [0, 1, 2, 3]) == 25.0


def test_a_diverged_model_has_no_accuracy() -> None:
    """open_clip: NaN scores count as right or as class 0, and the table looks fine; they must be an error."""
    for broken in (torch.tensor([[float("nan"), 0.0]]), torch.full((1, 2), float("nan"))):
        with pytest.raises(ValueError, match="NaN"):
            topk_accuracy(broken, torch.tensor([0]))
        with pytest.raises(ValueError, match="NaN"):
            retrieval_recall(broken, [[0]])


def test_several_captions_of_an_image(tmp_path: Path) -> None:
    """open_clip: with five captions an image only the first counts as right; any of its own must."""
    image(tmp_path / "r.png", RED)
    image(tmp_path / "b.png", BLUE)
    lines = [
        {"image": "r.png", "captions": ["green", "red"]},
        {"image": "b.png", "captions": ["blue", "green", "green"]},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = retrieve(table(tmp_path / "set.jsonl"))
    assert result.metrics["image_to_text_recall@1"] == 100.0
    assert result.items["image_top1"] == [1, 2]
    # Texts: "red" and "blue" find theirs; "green" scores 0 with both and takes the first image.
    assert result.items["text_rank"] == [1, 1, 1, 2, 2]
    assert result.metrics["text_to_image_recall@1"] == pytest.approx(60.0)


def test_the_same_image_under_two_names(tmp_path: Path) -> None:
    """COCO, Flickr: duplicates of an image tie; the lower position comes first, whatever the batch or block."""
    for name in ("1.png", "2.png"):
        image(tmp_path / name, RED)
    lines = [{"image": "1.png", "caption": "red"}, {"image": "2.png", "caption": "red"}]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for settings in ({}, {"query_chunk": 1, "key_chunk": 1}, {"encoding": encoding(1)}):
        result = retrieve(table(tmp_path / "set.jsonl"), **settings)
        assert result.items["text_rank"] == [1, 2], settings
        assert result.metrics["text_to_image_recall@1"] == 50.0


def test_lines_of_one_image_in_any_order(tmp_path: Path) -> None:
    """open_clip: a caption list that is not sorted by image pairs captions with wrong images; they go by name."""
    for name, color in (("r.png", RED), ("b.png", BLUE)):
        image(tmp_path / name, color)
    lines = [
        {"image": "r.png", "caption": "red"},
        {"image": "b.png", "caption": "blue"},
        {"image": "r.png", "caption": "so red"},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = table(tmp_path / "set.jsonl")
    assert dataset.keys == ["r.png", "b.png"]
    assert list(zip(dataset.captions, dataset.caption_image, strict=True)) == [
        ("red", 0),
        ("so red", 0),
        ("blue", 1),
    ]


def test_annotations_in_another_order_than_images(tmp_path: Path) -> None:
    """COCO: annotations are in no order and image ids have gaps; captions must follow the ids."""
    for name, color in (("r.png", RED), ("b.png", BLUE)):
        image(tmp_path / name, color)
    content = {
        "images": [{"id": 900, "file_name": "b.png"}, {"id": 7, "file_name": "r.png"}],
        "annotations": [
            {"image_id": 7, "caption": "red "},
            {"image_id": 900, "caption": "blue"},
            {"image_id": 7, "caption": "so red"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    dataset = coco_format(tmp_path / "captions.json", images=tmp_path)
    own = {
        dataset.keys[i]: [c for c, of in zip(dataset.captions, dataset.caption_image, strict=True) if of == i]
        for i in range(2)
    }
    assert own == {"b.png": ["blue"], "r.png": ["red", "so red"]}


def test_k_beyond_the_gallery(tmp_path: Path) -> None:
    """open_clip: Recall@10 of five images is an error of topk; everything is found then, by chance too."""
    image(tmp_path / "r.png", RED)
    (tmp_path / "set.jsonl").write_text(json.dumps({"image": "r.png", "caption": "blue"}))
    result = retrieve(table(tmp_path / "set.jsonl"), ks=(1, 10))
    assert (
        result.metrics["text_to_image_recall@10"] == result.metrics["text_to_image_recall@10_chance"] == 100.0
    )
    assert result.items["text_rank"] == [1]
