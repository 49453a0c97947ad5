"""Rows with hard negatives: which are valid, what stands in for the others, where the image is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.data.batch import collate
from hypvl.data.loader import Loader
from hypvl.data.negatives import NEGATIVE_TYPES, HardNegativeMapper
from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.errors import DataError
from tests.data.helpers import jpeg

ROW: dict[str, Any] = {
    "image_id": 7,
    "id": 1,
    "caption": "a man on a red bike",
    "relation_aug_caption": "a bike on a red man",
    "adj_aug_caption": "a man on a blue bike",
    "noun_aug_caption": "a man on a red horse",
    "verb_aug_caption": "###",
    "valid_caption": [1, 1, 1, 1, 0],
}
PATTERN = "COCO_train2014_{image_id:012d}.jpg"


def mapped(row: dict[str, Any], *, seed: int = 0, **options: Any) -> dict[str, Any]:
    mapper = HardNegativeMapper(**{"image_pattern": PATTERN, **options})
    return mapper("row 0", row, np.random.default_rng(seed))


def test_published_fields() -> None:
    fields = mapped(ROW)
    assert fields["image"] == "COCO_train2014_000000000007.jpg"
    assert fields["caption"] == ROW["caption"]
    assert fields["negative_text"] == [
        "a bike on a red man",
        "a man on a blue bike",
        "a man on a red horse",
        "",
    ]
    assert fields["negative_mask"].tolist() == [True, True, True, False]
    assert mapped({**ROW, "image_id": "7"})["image"] == fields["image"]


@pytest.mark.parametrize("text", ["###", "", "  ", "a man on a <mask> bike", "A man on a red  bike ", None])
def test_texts_that_are_no_false_caption_are_invalid_whatever_their_flag(text: str | None) -> None:
    row = {**ROW, "adj_aug_caption": text}
    fields = mapped(row)
    assert fields["negative_mask"].tolist() == [True, False, True, False]
    assert fields["negative_text"][1] == fields["negative_text"][3] == ""
    assert mapped(row, invalid_text="caption")["negative_text"][1] == ROW["caption"]


def test_flags_and_their_absence() -> None:
    flagged = mapped({**ROW, "valid_caption": [1, 0, 1, 0, 1]})
    assert flagged["negative_mask"].tolist() == [False, True, False, False]
    assert flagged["negative_text"][0] == ""  # an invalid text is never used, whatever it is
    unflagged = mapped({k: v for k, v in ROW.items() if k != "valid_caption"})
    assert unflagged["negative_mask"].tolist() == [True, True, True, False]


def test_general_form_takes_any_types_and_draws_one_of_several() -> None:
    entries = [
        {"type": "counting", "text": "two men"},
        {"type": "counting", "text": "no men"},
        {"type": "counting", "text": "three men", "valid": False},
        {"type": "noun", "text": "a man on a red horse"},
        {"type": "other", "text": "left out"},
    ]
    row = {"image": "x.jpg", "caption": "a man", "negatives": entries}
    options: dict[str, Any] = {"types": ["object", "counting", "relation"], "image_pattern": None}
    drawn = {mapped(row, seed=seed, **options)["negative_text"][1] for seed in range(20)}
    assert drawn == {"two men", "no men"}
    fields = mapped(row, **options)
    assert fields["negative_text"][0] == "a man on a red horse"
    assert fields["negative_mask"].tolist() == [True, True, False]
    assert mapped(row, seed=3, **options)["negative_text"] == mapped(row, seed=3, **options)["negative_text"]
    none = mapped({**row, "negatives": []}, **options)
    assert none["negative_mask"].tolist() == [False] * 3 and none["negative_text"] == [""] * 3


def test_types_choose_and_order_the_columns() -> None:
    fields = mapped(ROW, types=["noun", "relation"])
    assert fields["negative_text"] == [ROW["noun_aug_caption"], ROW["relation_aug_caption"]]
    assert HardNegativeMapper().types == NEGATIVE_TYPES
    assert HardNegativeMapper(types=["verb", "adjective"]).types == ("action", "attribute")


def test_image_from_a_field_or_a_pattern() -> None:
    for row, options, expected in (
        ({**ROW, "image": "a.jpg", "image_path": "b.jpg"}, {"image_pattern": None}, "a.jpg"),
        ({**ROW, "image_path": "b.jpg"}, {"image_pattern": None}, "b.jpg"),
        ({**ROW, "image": "a.jpg"}, {}, "COCO_train2014_000000000007.jpg"),
    ):
        assert mapped(row, **options)["image"] == expected


@pytest.mark.parametrize(("change", "options", "reason"), [
    ({"caption": " "}, {}, "empty caption"),
    ({"image_id": None}, {}, "does not fit image_pattern"),
    ({"image_id": "x"}, {}, "does not fit image_pattern"),
    ({"image_id": "1" * 5000}, {}, "does not fit image_pattern"),
    ({}, {"image_pattern": None}, "missing image or image_path .*set dataset.mapper.image_pattern"),
    ({"valid_caption": [1, 1]}, {}, "valid_caption is .*expected 5 flags"),
    ({"valid_caption": [0, 1, 1, 1, 1]}, {}, "says that the caption is not valid"),
    ({"adj_aug_caption": 3}, {}, "adj_aug_caption is int, expected text"),
    ({"negatives": "x"}, {}, "negatives is str, expected a list"),
    ({"negatives": [{"text": "x"}]}, {}, "negatives is not a list of"),
    ({"negatives": [{"type": "counting", "text": "x"}]}, {}, "negatives of types counting, expected some of relation"),
    ({}, {"types": ["counting"]}, "negatives of types .*expected some of counting"),
])  # fmt: skip
def test_bad_rows_say_why(change: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        mapped({**ROW, **change}, **options)


def test_row_without_negatives_says_so() -> None:
    with pytest.raises(BadSample, match="missing negatives"):
        mapped({"image_id": 7, "caption": "a"})


@pytest.mark.parametrize(("options", "words"), [
    ({"types": []}, "types: got .*expected at least one"),
    ({"types": ["noun", "object"]}, "each once"),
    ({"types": "noun"}, "types: got the text 'noun'"),
    ({"invalid_text": "none"}, "invalid_text: got 'none'"),
    ({"image_pattern": "{image_id"}, "which is not a pattern"),
    ({"image_pattern": "x.jpg"}, "expected names of fields in braces"),
    ({"image_pattern": "{caption.__class__}"}, "expected names of fields in braces"),
    ({"image_pattern": "{0}"}, "expected names of fields in braces"),
])  # fmt: skip
def test_settings_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HardNegativeMapper(**options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{**ROW, "image_id": i, "caption": f"a man on bike {i}"} for i in range(6)]
    (tmp_path / "negatives.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for i in range(6):
        (tmp_path / f"COCO_train2014_{i:012d}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(folder: Path, **options: Any) -> ImageTextTable:
    return ImageTextTable(
        folder / "negatives.jsonl",
        image_transform=Squeeze(8),
        tokenizer=get_tokenizer(),
        mapper=HardNegativeMapper(image_pattern=PATTERN, **options),
    )


def test_table_gives_batches_that_losses_take(folder: Path) -> None:
    """Negatives of sample i are the rows 4i to 4i + 3; the empty one is the start and end signs alone."""
    tokens, dataset = get_tokenizer(), table(folder)
    samples = [dataset.sample(i, np.random.default_rng(i)) for i in (0, 4)]
    batch = collate(samples, positions=[0, 1], rows=[0, 4])
    assert batch["negative_mask"].tolist() == [[True, True, True, False]] * 2
    assert batch["negative_mask"].dtype == torch.bool
    assert batch["text"].shape[0] == 2 and batch["negative_text"].shape[0] == 8
    for i in (0, 1):
        texts = [
            tokens.decode([t for t in row.tolist() if t]) for row in batch["negative_text"][4 * i : 4 * i + 4]
        ]
        assert "red horse" in texts[2] and "blue bike" in texts[1]
        assert (batch["negative_text"][4 * i + 3] > 0).sum() == 2
    assert "bike 4" in tokens.decode([t for t in batch["text"][1].tolist() if t])
    loaded = next(iter(Loader(dataset, global_batch_size=4, rank=0, world_size=1, num_workers=0, seed=0)))
    assert loaded["negative_text"].shape[0] == 16 and loaded["bad"] == []


def test_fingerprint_follows_the_mapper(folder: Path) -> None:
    prints = {table(folder).fingerprint, table(folder, types=["relation"]).fingerprint}
    plain = ImageTextTable(
        folder / "negatives.jsonl",
        image_transform=Squeeze(8),
        tokenizer=get_tokenizer(),
        image_column="image_id",
        caption_column="caption",
    )
    assert len(prints | {plain.fingerprint}) == 3
    assert table(folder).fingerprint in prints


def test_table_without_captions_is_named(tmp_path: Path) -> None:
    (tmp_path / "negatives.jsonl").write_text('{"image": "x.jpg", "title": "a"}\n')
    with pytest.raises(DataError, match="has no column 'caption'; it has image, title"):
        table(tmp_path).prepare()


def test_a_long_text_of_digits_is_no_number() -> None:
    # ``int`` refuses more than 4,300 digits, and "²"; other fields are not what the pattern asks for
    fields = {**ROW, "image_id": "7", "note": "1" * 5000, "other": "²"}
    assert mapped(fields)["image"] == "COCO_train2014_000000000007.jpg"
    with pytest.raises(BadSample, match="does not fit image_pattern"):
        mapped({**ROW, "image_id": "²"})


def test_a_negative_of_which_nothing_is_left_is_none() -> None:
    assert mapped({**ROW, "noun_aug_caption": "&nbsp;"})["negative_mask"].tolist() == [
        True,
        True,
        False,
        False,
    ]
