"""CSV, TSV and JSONL files as spreadsheets, pandas and other systems write them."""

import json
from pathlib import Path

import numpy as np
import pytest

from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import Squeeze
from hypvl.datasets.classification.table import LabelledTable
from hypvl.datasets.hierarchy.caption_chains import hierarcaps
from hypvl.datasets.retrieval.table import table as captioned
from hypvl.datasets.user_inputs import text_file
from tests.data.helpers import Letters, jpeg, text_of
from tests.evaluation.fakes import RED, image

# Signs at which str.splitlines ends a line, and a file does not.
SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(path: Path, text: str | bytes, **options: object) -> ImageTextTable:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ImageTextTable(path, image_transform=Squeeze(8), tokenizer=Letters(), **options)  # type: ignore[arg-type]


def captions(dataset: ImageTextTable) -> list[str]:
    return [text_of(dataset.sample(row, np.random.default_rng(0))["text"]) for row in range(len(dataset))]


@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "mark"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "unended"])
def test_tables_of_spreadsheets(folder: Path, bom: str, ends: str, last: bool) -> None:
    """open_clip: a byte order mark hides the first column, captions end in carriage returns; neither may be seen."""
    lines = ["filepath\ttitle", "0.jpg\tone", "1.jpg\ttwo"]
    text = bom + ends.join(lines) + (ends if last else "")
    assert captions(table(folder / "t.csv", text)) == ["one", "two"]
    json_text = (
        bom
        + ends.join(json.dumps({"filepath": f"{i}.jpg", "title": f"{i}"}) for i in range(2))
        + (ends if last else "")
    )
    assert captions(table(folder / "t.jsonl", json_text)) == ["0", "1"]


@pytest.mark.parametrize("sign", SEPARATORS, ids=[f"U+{ord(s):04X}" for s in SEPARATORS])
def test_signs_that_are_no_line_ends(folder: Path, sign: str) -> None:
    """webdataset: a caption with U+2028 or a form feed is cut into two lines; in every reader it must stay one."""
    caption = f"one{sign}two"
    row = json.dumps(
        {"filepath": "0.jpg", "image": "0.jpg", "title": caption, "caption": caption}, ensure_ascii=False
    )
    assert captions(table(folder / "t.jsonl", row + "\n" + row)) == [caption] * 2
    assert captions(table(folder / "t.csv", f"filepath\ttitle\n0.jpg\t{caption}\n1.jpg\tb\n")) == [
        caption,
        "b",
    ]
    image(folder / "0.png", RED)
    (folder / "r.jsonl").write_text(row, encoding="utf-8")
    assert captioned(folder / "r.jsonl").captions == [caption]
    (folder / "r.csv").write_text(f"filepath\ttitle\n0.jpg\t{caption}\n", encoding="utf-8")
    assert captioned(folder / "r.csv").captions == [caption]
    for name, text in (("r.jsonl", row), ("t.txt", caption), ("q.csv", f"caption,x\n{caption},1\n")):
        (folder / name).write_text(text, encoding="utf-8")
        assert list(text_file(folder / name).texts) == [caption], name
    label = json.dumps({"image": "0.jpg", "label": caption}, ensure_ascii=False)
    (folder / "l.jsonl").write_text(label, encoding="utf-8")
    assert LabelledTable(folder / "l.jsonl").classes == [caption]
    chain = [caption, "b", "c", "d"]
    for name, text in (
        ("c.jsonl", json.dumps({"image": "0.jpg", "captions": chain}, ensure_ascii=False)),
        ("c.csv", "image,level0,level1,level2,level3\n0.jpg," + ",".join(chain)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        assert hierarcaps(folder, annotations=name, images_root=folder).chains == [chain]


def test_columns_in_another_order_and_more_of_them(folder: Path) -> None:
    """open_clip: an index column of pandas shifts all columns; they must be found by name."""
    text = "\ttitle\twidth\tfilepath\n0\tone\t7\t0.jpg\n1\ttwo\t8\t1.jpg\n"
    assert captions(table(folder / "t.csv", text)) == ["one", "two"]


def test_captions_are_texts_even_if_they_look_like_numbers(folder: Path) -> None:
    """open_clip: captions such as "nan", "None" or "007" become floats and break the tokenizer; they are texts."""
    texts = ["nan", "None", "1984", "007", "1e5", "True", "NA", "-inf"]
    rows = "".join(f"0.jpg\t{text}\n" for text in texts)
    assert captions(table(folder / "t.csv", "filepath\ttitle\n" + rows)) == texts
    (folder / "t.txt").write_text("\n".join(texts))
    assert list(text_file(folder / "t.txt").texts) == texts


def test_quoted_fields_hold_separators_and_quotes(folder: Path) -> None:
    """open_clip: a comma in a caption shifts columns; quoted fields must be read as spreadsheets write them."""
    text = 'filepath,title\n0.jpg,"a dog, running ""fast"" on grass"\n1.jpg,plain\n'
    assert captions(table(folder / "t.csv", text, separator=",")) == [
        'a dog, running "fast" on grass',
        "plain",
    ]


@pytest.mark.parametrize(
    "name",
    ["with space.jpg", "ünïcode 山.jpg", "a#b.jpg", "a=b.jpg", "a[1].jpg", "a.b.JPG", "100%.jpg", "%41.jpg"],
)
def test_image_names_of_all_kinds(folder: Path, name: str) -> None:
    """timm: names with spaces, brackets or percent signs are not found; a name is neither a pattern nor a URL."""
    (folder / name).write_bytes(jpeg(0))
    assert captions(table(folder / "t.csv", f"filepath\ttitle\n{name}\tfound\n")) == ["found"]


def test_one_missing_image_is_one_bad_sample(folder: Path) -> None:
    """open_clip: one missing file among millions ends training; only its row may be bad, and it is named."""
    dataset = table(folder / "t.csv", "filepath\ttitle\n0.jpg\tone\ngone.jpg\ttwo\n")
    assert text_of(dataset.sample(0, np.random.default_rng(0))["text"]) == "one"
    with pytest.raises(BadSample, match=r"t\.csv/row 1: cannot read .*gone\.jpg"):
        dataset.sample(1, np.random.default_rng(0))


def test_upper_case_suffix_of_a_table(folder: Path) -> None:
    """img2dataset: `.JSONL` is read as CSV; the suffix must count in any case."""
    row = json.dumps({"filepath": "0.jpg", "title": "one"})
    assert captions(table(folder / "T.JSONL", row + "\n")) == ["one"]
