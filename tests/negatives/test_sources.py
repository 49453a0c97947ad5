"""Captions from files of every kind."""

import json
import os
from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.sources import Captions
from tests.data.helpers import jpeg, write_tar

COCO = {
    "images": [
        {"id": 9, "file_name": "COCO_train2014_9.jpg"},
        {"id": 4, "file_name": "COCO_train2014_4.jpg"},
    ],
    "annotations": [
        {"image_id": 4, "id": 11, "caption": "A dog."},
        {"image_id": 9, "id": 12, "caption": "A red bus."},
        {"image_id": 4, "id": 13, "caption": "A brown dog.\n"},
    ],
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(*paths: Path, **arguments) -> list[tuple]:
    captions = Captions(SourceArguments(tuple(map(str, paths)), **arguments))
    return [(row.position, row.image, row.caption) for row in captions]


def test_coco(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.json", json.dumps(COCO))
    captions = Captions(SourceArguments((str(path),), image_prefix="train2014/"))
    rows = list(captions)
    assert captions.total == 3
    assert [(row.position, row.image, row.caption, row.ids, row.others) for row in rows] == [
        (0, "train2014/COCO_train2014_4.jpg", "A dog.", (("image_id", 4), ("id", 11)), ("A brown dog.\n",)),
        (1, "train2014/COCO_train2014_9.jpg", "A red bus.", (("image_id", 9), ("id", 12)), ()),
        (2, "train2014/COCO_train2014_4.jpg", "A brown dog.\n", (("image_id", 4), ("id", 13)), ("A dog.",)),
    ]
    assert list(captions) == rows  # again the same


def test_json_list_with_several_captions(tmp_path: Path) -> None:
    path = write(tmp_path / "karpathy.json", json.dumps([{"image": "a.jpg", "caption": ["one", "two"]}]))
    rows = list(Captions(SourceArguments((str(path),))))
    assert [(row.position, row.caption, row.others) for row in rows] == [
        (0, "one", ("two",)),
        (1, "two", ("one",)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        ("t.csv", 'image,caption\na.jpg,"a dog, asleep"\nb.jpg,a cat\n', {}),
        ("t.tsv", "title\tfilepath\na dog, asleep\ta.jpg\n\na cat\tb.jpg\n", {}),
        ("t.csv", "\ufefffilepath\ttitle\na.jpg\ta dog, asleep\nb.jpg\ta cat\n", {"separator": "\t"}),
        ("t.csv", "x|y\na.jpg|a dog, asleep\nb.jpg|a cat\n",
         {"separator": "|", "image_column": "x", "caption_column": "y"}),
        ("t.jsonl", '{"image": "a.jpg", "caption": "a dog, asleep"}\n\n{"image": "b.jpg", "caption": "a cat"}', {}),
    ],
)  # fmt: skip
def test_tables_and_lines(tmp_path: Path, name: str, text: str, arguments: dict) -> None:
    path = write(tmp_path / name, text)
    assert read(path, **arguments) == [(0, "a.jpg", "a dog, asleep"), (1, "b.jpg", "a cat")]


def test_positions_run_on_over_files_and_limit_cuts(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.csv", f"image,caption\n{name},a\n{name},b\n") for name in "xy"]
    assert read(*paths) == [(0, "x", "a"), (1, "x", "b"), (2, "y", "a"), (3, "y", "b")]
    assert read(*paths, limit=3)[-1] == (2, "y", "a")


def test_tars(tmp_path: Path) -> None:
    members = [
        ("a.jpg", jpeg(0)), ("a.txt", b"a dog\n"),
        ("b.png", b"x"), ("b.json", b'{"caption": "a cat"}'),
        ("c.txt", b"no image"),
        ("d.jpg", b"x"), ("d.json", b"{broken"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "00000.tar", members)
    captions = Captions(SourceArguments((str(tmp_path / "*.tar"),)))
    assert [(row.image, row.caption) for row in captions] == [
        ("00000/a.jpg", "a dog"),
        ("00000/b.png", "a cat"),
    ]
    assert captions.skipped == {"no image": 1, "broken JSON": 1}
    assert read(path, caption_column="caption") == [(0, "00000/b.png", "a cat")]


def test_unusable_entries_are_counted_and_take_no_position(tmp_path: Path) -> None:
    lines = [
        {"image": "a", "caption": "  "}, {"image": "a", "caption": None}, {"image": "", "caption": "x"},
        {"image": 7, "caption": "good"}, {"image": True, "caption": "x"}, {"image": "a", "caption": ["x", 3]},
        {"image": "a", "caption": "\ud800"},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, lines)) + '\n{"image"\n[1]\n'
    path = write(tmp_path / "t.jsonl", text.encode() + b'{"image": "a", "caption": "\xff"}\n')
    captions = Captions(SourceArguments((str(path),)))
    assert [(row.position, row.image, row.caption) for row in captions] == [(0, 7, "good")]
    assert captions.skipped == {
        "no caption": 3, "no image": 2, "no valid Unicode": 2, "broken JSON": 1, "no JSON object": 1,
    }  # fmt: skip


def test_broken_rows_of_a_table_are_counted_and_give_no_other_caption(tmp_path: Path) -> None:
    lines = [
        "a.jpg,a dog, running on grass", 'b.jpg,"open a dog', "c.jpg,a cat", 'd.jpg,5" nail', 'e.jpg,"a \\"red\\" bus"',
        f'f.jpg,"{"y" * 200_000}"', 'g.jpg,"a ""good"" owl"',
    ]  # fmt: skip
    captions = Captions(
        SourceArguments((str(write(tmp_path / "t.csv", "\n".join(["image,caption", *lines]))),))
    )
    assert [(row.image, row.caption) for row in captions] == [
        ("c.jpg", "a cat"), ("d.jpg", '5" nail'), ("g.jpg", 'a "good" owl'),
    ]  # fmt: skip
    assert captions.skipped == {
        "another number of fields than the header": 1,
        "a quotation mark that opens a field and does not close it": 1,
        "a quotation mark inside a quoted field": 1,
        "a field that is too long": 1,
    }


def test_a_blank_caption_costs_the_others_nothing(tmp_path: Path) -> None:
    rows = [{"image": "a", "caption": ["", "x", "&nbsp;", "y"]}, {"image": "b", "caption": ["", " "]}]
    captions = Captions(
        SourceArguments((str(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))),))
    )
    assert [(row.position, row.caption, row.others) for row in captions] == [
        (0, "x", ("y",)),
        (1, "y", ("x",)),
    ]
    assert captions.skipped == {"no caption": 3}


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    for name in ("t.csv", "t.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=r"cannot be read \(not a regular file but a pipe\)"):
            read(tmp_path / name)


def test_table_with_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"image,caption\na,caf\xe9\nb,ok\n")
    captions = Captions(SourceArguments((str(path),)))
    assert [row.image for row in captions] == ["b"]
    assert captions.skipped == {"no valid Unicode": 1}


def test_fingerprint_is_of_content_and_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "image,caption\na,b\n")
    other = write(tmp_path / "u.csv", "image,caption\na,c\n")

    def fingerprint(path: Path, **arguments) -> str:
        return Captions(SourceArguments((str(path),), **arguments)).fingerprint

    moved = write(tmp_path / "moved.csv", path.read_bytes())
    assert fingerprint(path) == fingerprint(moved)
    assert len({fingerprint(path), fingerprint(other), fingerprint(path, image_prefix="x/")}) == 3


@pytest.mark.parametrize(
    ("name", "content", "arguments", "words"),
    [
        ("t.csv", "a,b\n1,2\n", {}, ["no column 'image'", "it has a, b", "--image-column"]),
        ("t.csv", "image|caption\nx|y\n", {}, ["it has image|caption", "--separator"]),
        ("t.csv", "image,caption,caption\nx,y,z\n", {}, ["has 2 columns 'caption'"]),
        ("t.jsonl", '{"image": "x", "caption": "y"}'.encode("utf-16"), {}, ["is UTF-16", "expected UTF-8"]),
        ("t.csv", "image,caption\nx,y\n", {"caption_column": "text"}, ["no column 'text'"]),
        ("t.json", "[" * 100_000, {}, ["is not JSON", "nested too deeply"]),
        ("t.csv", b"\x1f\x8b\x08", {}, ["compressed with gzip"]),
        ("t.json", "{", {}, ["is not JSON", "--format jsonl"]),
        ("t.json", '{"a": 1}', {}, ["expected COCO captions"]),
        (
            "t.json",
            '{"images": [], "annotations": [{"bbox": 1}]}',
            {},
            ["instances or keypoints are not captions"],
        ),
        (
            "t.json",
            json.dumps({**COCO, "images": [*COCO["images"], {"id": 4, "file_name": "other.jpg"}]}),
            {},
            ["the id 4 twice, for 'COCO_train2014_4.jpg' and 'other.jpg'"],
        ),
        ("t.parquet", "x", {}, ["its format is not clear", "--format"]),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, name: str, content, arguments: dict, words: list[str]
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        read(path, **arguments)
    for word in [str(path), *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_mixed_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        read(tmp_path / "no.csv")
    with pytest.raises(DataError, match=r"several formats \(json, table\)"):
        read(tmp_path / "a.csv", tmp_path / "b.json")
    with pytest.raises(DataError, match="no captions given"):
        read()
