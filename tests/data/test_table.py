import json
import pickle

import numpy as np
import pytest

from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import Squeeze
from hypvl.errors import DataError
from tests.data.helpers import Letters, jpeg, text_of


@pytest.fixture
def images(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        (tmp_path / "pictures" / f"{i}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(path, text, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ImageTextTable(path, image_transform=Squeeze(8), tokenizer=Letters(), **options)


def captions(dataset):
    return [text_of(dataset.sample(row, np.random.default_rng(0))["text"]) for row in range(len(dataset))]


def test_tab_separated_even_in_csv(images):
    dataset = table(
        images / "t.csv", "id\tfilepath\ttitle\n0\tpictures/0.jpg\ta, b\n1\tpictures/1.jpg\tüber 山\n"
    )
    assert captions(dataset) == ["a, b", "über 山"]
    sample = dataset.sample(1, np.random.default_rng(0))
    assert sample["key"] == "t.csv/row 1 (pictures/1.jpg)"
    assert sample["image"].shape == (3, 8, 8)
    assert not np.array_equal(sample["image"], dataset.sample(0, np.random.default_rng(0))["image"])


def test_quotes_blank_lines_line_ends_and_a_byte_order_mark(images):
    text = (
        "\ufefftitle\tfilepath\r\n"
        '"two\nlines with ""quotes"" and a\ttab"\tpictures/0.jpg\r\n'
        "\r\n"
        'plain "inside"\tpictures/1.jpg\r\n'
        "\n\nlast\tpictures/2.jpg"
    )
    dataset = table(images / "t.tsv", text)
    assert captions(dataset) == ['two\nlines with "quotes" and a\ttab', 'plain "inside"', "last"]


def test_names_separator_root_and_quoting_are_options(images):
    text = 'IMAGE,Text\n0.jpg,"open quote\n1.jpg,b\n'
    options = {
        "image_column": "IMAGE",
        "caption_column": "Text",
        "separator": ",",
        "images_root": images / "pictures",
    }
    assert captions(table(images / "t.csv", text, quoting="none", **options)) == ['"open quote', "b"]
    assert len(table(images / "t.csv", text, **options)) == 1  # the quote takes the next line in


def test_jsonl(images):
    rows = [
        {"filepath": "pictures/0.jpg", "title": "ein Gebäude"},
        {"filepath": str(images / "pictures/1.jpg"), "title": ["one", "other"], "more": 1},
    ]
    text = "\ufeff\n" + "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    dataset = table(images / "t.jsonl", text)
    assert captions(dataset)[0] == "ein Gebäude"
    drawn = {text_of(dataset.sample(1, np.random.default_rng(s))["text"]) for s in range(20)}
    assert drawn == {"one", "other"}


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("t.csv", "\tcap", "missing filepath"),
        ("t.csv", "pictures/0.jpg\t", "empty title"),
        ("t.csv", "pictures/0.jpg", "missing title"),
        ("t.csv", "gone.jpg\tcap", "cannot read .*gone.jpg"),
        ("t.csv", "pictures\tcap", "cannot read .*pictures"),
        ("t.csv", "t.csv\tcap", "cannot decode"),
        ("t.csv", b"pictures/0.jpg\t\xff\xfe", "broken row"),
        ("t.jsonl", "{broken", "broken row"),
        ("t.jsonl", "[1]", "a list, expected a JSON object"),
        ("t.jsonl", '{"filepath": "pictures/0.jpg"}', "missing title"),
        ("t.jsonl", '{"filepath": 3, "title": "cap"}', "missing filepath"),
        ("t.jsonl", '{"filepath": "a\\u0000b", "title": "cap"}', "cannot read"),
    ],
)
def test_bad_rows_are_bad_samples(images, name, row, reason):
    good = "filepath\ttitle" if name == "t.csv" else '{"filepath": "pictures/1.jpg", "title": "good"}'
    dataset = table(images / name, good.encode() + b"\n" + (row if isinstance(row, bytes) else row.encode()))
    last = len(dataset) - 1
    with pytest.raises(BadSample, match=f"{name}/row {last}.*{reason}"):
        dataset.sample(last, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "a\tb\n1\t2\n", "t.csv: has no column 'filepath'; it has a, b"),
        ("t.csv", "filepath,title\n1,2\n", r"set dataset.separator\?"),
        ("t.csv", "filepath\tTitel\n1\t2\n", "has no column 'title'; it has filepath, Titel"),
        ("t.jsonl", '{"a": 1}\n', "has no column 'filepath'; it has a"),
        ("t.jsonl", "no\njson\n", "none of its first lines is a JSON object"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "filepath\ttitle\n", "has no rows"),
        ("t.csv", "filepath\ttitle\n" + 'x\t"' + "y" * 200_000, "set dataset.quoting=none"),
        ("t.csv", b"\x1f\x8b\x08", "compressed with gzip"),
    ],
)
def test_tables_that_cannot_be_used(images, name, text, words):
    with pytest.raises(DataError, match=words):
        len(table(images / name, text))


def test_a_missing_table_and_wrong_options(images):
    with pytest.raises(DataError, match=r"none.csv: cannot be read"):
        len(ImageTextTable(images / "none.csv", image_transform=Squeeze(8), tokenizer=Letters()))
    with pytest.raises(ValueError, match="separator: got ', '"):
        ImageTextTable("t.csv", image_transform=Squeeze(8), tokenizer=Letters(), separator=", ")


def test_blocks_cover_all_rows(images):
    dataset = table(images / "t.csv", "filepath\ttitle\n" + "pictures/0.jpg\ta\n" * 70)
    assert dataset.shard_sizes() == [32, 32, 6] and len(dataset) == 70


def test_fingerprint_and_pickling(images):
    text = "filepath\ttitle\npictures/0.jpg\ta\n"
    dataset = table(images / "t.csv", text)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.fingerprint == dataset.fingerprint and captions(again) == ["a"]
    assert table(images / "u.csv", text).fingerprint == dataset.fingerprint  # the name does not matter
    assert table(images / "t.csv", text.replace("\ta", "\tb")).fingerprint != dataset.fingerprint
