"""The ShareGPT4V list: captions, splits, subsets, places in the file, broken lists."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.data.augment import EDA, InModalAugment
from hypvl.data.loader import Loader
from hypvl.data.sample import BadSample
from hypvl.data.share_gpt4v import ShareGPT4V, short_caption
from hypvl.data.tokenizer import EOT_TOKEN, get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.errors import DataError
from hypvl.io import json_text
from tests.data.helpers import Letters, jpeg, text_of


def entry(number: int, caption: str, *, folder: str = "coco/train2017") -> dict[str, Any]:
    turns = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": caption}]
    return {"id": str(number), "image": f"{folder}/{number}.jpg", "conversations": turns}


def write(tmp_path: Path, entries: Any, **style: Any) -> Path:
    for each in entries if isinstance(entries, list) else []:
        if isinstance(each, dict) and isinstance(each.get("image"), str):
            image = tmp_path / "data" / each["image"]
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(jpeg(len(each["image"])))
    path = tmp_path / "list.json"
    path.write_text(json.dumps(entries, **style), encoding="utf-8")
    return path


def dataset(path: Path, **options: Any) -> ShareGPT4V:
    options = {"validation_entries": 0, "tokenizer": Letters(), **options}
    return ShareGPT4V(path, image_transform=Squeeze(8), **options)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(data: ShareGPT4V, name: str = "text") -> list[str]:
    return [text_of(data.sample(row, draw())[name]) for row in range(len(data))]


def test_captions_long_and_short(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0, "A cat.\nIt sleeps. On a mat."), entry(1, "No sentence end")])
    data = dataset(path)
    assert texts(data) == ["A cat. It sleeps. On a mat.", "No sentence end"]
    assert texts(data, "short_text") == ["A cat", "No sentence end"]
    sample = data.sample(1, draw())
    assert sample["image"].shape == (3, 8, 8)
    assert sample["key"] == "list.json/train 1 (coco/train2017/1.jpg)"


@pytest.mark.parametrize(
    ("caption", "short"),
    [("One. Two. Three.", "One"), ("v1.5 is out. Good", "v1.5 is out"), ("One.", "One."), (". odd", ". odd")],
)
def test_the_short_caption_is_what_stands_before_the_first_period(caption: str, short: str) -> None:
    assert short_caption(caption) == short


def test_split_comes_before_the_subset(tmp_path: Path) -> None:
    folders = ["coco/a", "sam/b", "coco/a", "llava/c", "coco/a", "sam/b"]
    path = write(tmp_path, [entry(i, f"caption {i}", folder=f) for i, f in enumerate(folders)])
    every: dict[str, Any] = {"validation_entries": 3}
    assert texts(dataset(path, split="validation", **every)) == ["caption 0", "caption 1", "caption 2"]
    assert texts(dataset(path, split="train", **every)) == ["caption 3", "caption 4", "caption 5"]
    assert texts(dataset(path, split="train", subset="coco", **every)) == ["caption 4"]
    assert texts(dataset(path, split="validation", subset="coco", **every)) == ["caption 0", "caption 2"]
    assert texts(dataset(path, subset="sam/")) == ["caption 1", "caption 5"]
    assert (
        len({dataset(path, **o).fingerprint for o in ({}, {"subset": "sam"}, {"validation_entries": 1})}) == 3
    )
    assert (
        len({dataset(path, split=s, validation_entries=3).fingerprint for s in ("train", "validation")}) == 2
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"ensure_ascii": False}, {"separators": (",", ":")}])
@pytest.mark.parametrize("window", [3, 7, 64, 1 << 22])
def test_places_are_right_however_the_list_is_written(
    style: dict[str, Any], window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = ['a "quoted" [bracket], ü 山 \\ }', "b\nc", "😀 {", "last"]
    path = write(tmp_path, [entry(i, c, folder=f"ü{i % 2}") for i, c in enumerate(captions)], **style)
    path.write_bytes(b"\xef\xbb\xbf \n" + path.read_bytes() + b"\n\n")
    monkeypatch.setattr(json_text, "_WINDOW", window)
    data = dataset(path)
    assert texts(data) == [c.replace("\n", " ") for c in captions]
    assert texts(dataset(path, subset="ü1")) == ["b c", "last"]
    monkeypatch.setattr(json_text, "_WINDOW", 1 << 22)
    assert data.fingerprint == dataset(path).fingerprint


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"image": "x.jpg"}, r"missing conversations\[1\]\.value"),
        ({"image": "x.jpg", "conversations": [{"value": "q"}]}, r"missing conversations\[1\]\.value"),
        ({"image": "x.jpg", "conversations": [0, {"value": "  "}]}, "empty conversations"),
        ({"image": "x.jpg", "conversations": [0, {"value": 3}]}, "is int, expected text"),
        ({"conversations": [0, {"value": "cap"}]}, "missing image"),
        ({"image": "gone.jpg", "conversations": [0, {"value": "cap"}]}, "cannot read .*gone.jpg"),
        ({"image": "../x.jpg", "conversations": [0, {"value": "cap"}]}, "is outside images_root"),
        ({"image": "/dev/zero", "conversations": [0, {"value": "cap"}]}, "is outside images_root"),
        (["no object"], r"missing conversations\[1\]\.value"),
    ],
)
def test_entries_that_cannot_be_used_are_bad_samples(tmp_path: Path, bad: Any, reason: str) -> None:
    path = write(tmp_path, [entry(0, "good"), bad])
    (tmp_path / "data" / "gone.jpg").unlink(missing_ok=True)
    with pytest.raises(BadSample, match=f"list.json/train 1: .*{reason}"):
        dataset(path).sample(1, draw())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "is not a JSON list, it begins with '{\"a\": 1}'"),
        ("", "is not a JSON list"),
        ('[{"image": "x.jpg"}, {"ima', "is not a whole JSON list, it breaks after byte 21"),
        ('[{"image": "x.jpg"}', "is not a whole JSON list"),
        ("[{}, nonsense]", "it breaks after byte 5"),
        ("[]", "none of its 0 entries is of split 'train'"),
        ('[{"image": "sam/x.jpg"}]', "none of its 1 entries is of split 'train' with 'coco' in its image"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        len(dataset(path, subset="coco" if "sam" in content else None))


def test_an_entry_that_never_ends_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.json"
    path.write_text('[{"image": "' + "x" * 10_000)
    monkeypatch.setattr(json_text, "_WINDOW", 100)
    monkeypatch.setattr(json_text, "_LARGEST_ELEMENT", 1000)
    with pytest.raises(DataError, match="it breaks after byte 1 "):
        len(dataset(path))


def test_a_missing_list_and_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        len(dataset(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="split: got 'test'; expected 'train' or 'validation'"):
        dataset(tmp_path / "x.json", split="test")
    with pytest.raises(ValueError, match="validation_entries: got -1"):
        dataset(tmp_path / "x.json", validation_entries=-1)


def test_the_loader_reads_it_with_long_texts_and_augmentation(tmp_path: Path) -> None:
    long = " ".join(["word"] * 300)
    path = write(tmp_path, [entry(i, f"first {i}. {long}") for i in range(40)])
    data = dataset(path, tokenizer=get_tokenizer(248), augment=InModalAugment(text=EDA()))
    assert data.shard_sizes() == [32, 8]
    loader = Loader(
        pickle.loads(pickle.dumps(data)),
        global_batch_size=8, rank=0, world_size=1, num_workers=0, seed=0, pin_memory=False,
    )  # fmt: skip
    with loader:
        batch = next(iter(loader))
    assert batch["text"].shape == (8, 248)
    assert (batch["text"][:, -1] == EOT_TOKEN).all()  # cut, and its end is still there
    assert batch["short_text"].shape[1] in (4, 5)  # start, "first", one digit or two, end
    assert batch["augmented_text"].shape[0] == 8


def test_the_images_root_is_an_option(tmp_path: Path) -> None:
    path = write(tmp_path, [entry(0, "cap")])
    (tmp_path / "data").rename(tmp_path / "images")
    assert texts(dataset(path, images_root=tmp_path / "images")) == ["cap"]
    with pytest.raises(BadSample, match="data/coco"):
        dataset(path).sample(0, draw())
