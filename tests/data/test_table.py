import json
import os
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
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i))
    return tmp_path


def table(path, text, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ImageTextTable(path, image_transform=Squeeze(8), tokenizer=Letters(), **options)


def captions(dataset):
    return [text_of(dataset.sample(row, np.random.default_rng(0))["text"]) for row in range(len(dataset))]


def test_tab_separated_even_in_csv(images):
    dataset = table(
        images / "t.csv", "id\tfilepath\ttitle\n0\timages/0.jpg\ta, b\n1\timages/1.jpg\tüber 山\n"
    )
    assert captions(dataset) == ["a, b", "über 山"]
    sample = dataset.sample(1, np.random.default_rng(0))
    assert sample["key"] == "t.csv/row 1 (images/1.jpg)"
    assert sample["image"].shape == (3, 8, 8)
    assert not np.array_equal(sample["image"], dataset.sample(0, np.random.default_rng(0))["image"])


def test_quotes_blank_lines_line_ends_and_a_byte_order_mark(images):
    text = (
        "\ufefftitle\tfilepath\r\n"
        '"two\nlines with ""quotes"" and a\ttab"\timages/0.jpg\r\n'
        "\r\n"
        'plain "inside"\timages/1.jpg\r\n'
        "\n\nlast\timages/2.jpg"
    )
    dataset = table(images / "t.tsv", text)
    assert captions(dataset) == ['two\nlines with "quotes" and a\ttab', 'plain "inside"', "last"]


def test_names_separator_root_and_quoting_are_options(images):
    text = 'IMAGE,Text\n0.jpg,"open quote\n1.jpg,b\n'
    options = {
        "image_column": "IMAGE",
        "caption_column": "Text",
        "separator": ",",
        "images_root": images / "images",
    }
    assert captions(table(images / "t.csv", text, quoting="none", **options)) == ['"open quote', "b"]
    strict = table(images / "t.csv", text, **options)
    with pytest.raises(BadSample, match="row 0: broken row: a quotation mark that opens a field"):
        strict.sample(0, np.random.default_rng(0))
    assert text_of(strict.sample(1, np.random.default_rng(0))["text"]) == "b"


def test_jsonl(images):
    rows = [
        {"filepath": "images/0.jpg", "title": "ein Gebäude"},
        {"filepath": str(images / "images/1.jpg"), "title": ["one", "other"], "more": 1},
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
        ("t.csv", "images/0.jpg\t", "empty title"),
        ("t.csv", "images/0.jpg", r"another number of fields than the header \(1, expected 2"),
        (
            "t.csv",
            "images/0.jpg\ta dog\trunning",
            r"another number of fields than the header \(3, expected 2",
        ),
        ("t.csv", 'images/0.jpg\t"a \\"dog\\""', "a quotation mark inside a quoted field"),
        ("t.csv", "images/0.jpg\ta dog\rruns", "broken row"),
        ("t.csv", 'images/0.jpg\t"' + "y" * 200_000 + '"', "a field that is too long"),
        ("t.csv", "gone.jpg\tcap", "cannot read .*gone.jpg"),
        ("t.csv", "images\tcap", "cannot read .*images"),
        ("t.csv", "t.csv\tcap", "cannot decode"),
        ("t.csv", b"images/0.jpg\t\xff\xfe", "broken row"),
        ("t.jsonl", "{broken", "broken row"),
        ("t.jsonl", "[1]", r"no JSON object \(a list\)"),
        ("t.jsonl", '{"filepath": "images/0.jpg"}', "missing title"),
        ("t.jsonl", '{"filepath": 3, "title": "cap"}', "missing filepath"),
        ("t.jsonl", "[" * 100_000, "broken JSON"),
        ("t.jsonl", '{"filepath": "a\\u0000b", "title": "cap"}', "cannot read"),
    ],
)
def test_bad_rows_are_bad_samples(images, name, row, reason):
    good = "filepath\ttitle" if name == "t.csv" else '{"filepath": "images/1.jpg", "title": "good"}'
    dataset = table(images / name, good.encode() + b"\n" + (row if isinstance(row, bytes) else row.encode()))
    last = len(dataset) - 1
    with pytest.raises(BadSample, match=f"{name}/row {last}.*{reason}"):
        dataset.sample(last, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "a\tb\n1\t2\n", "t.csv: has no column 'filepath' or .*; it has a, b; set image_column"),
        ("t.csv", "filepath|title\n1|2\n", r"set separator\?"),
        ("t.csv", "filepath\tTitel\n1\t2\n", "has no column 'title' or .*; it has filepath, Titel"),
        ("t.jsonl", '{"a": 1}\n', "has no column 'filepath' or .*; it has a"),
        ("t.jsonl", "no\njson\n", "none of its first lines is a JSON object"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "filepath\ttitle\n", "has no rows"),
        ("t.csv", "filepath\ttitle\ttitle\nx\ty\tz\n", "has 2 columns 'title'; expected one"),
        ("t.csv", "filepath\ttitle\nx\ty\n".encode("utf-16"), "is UTF-16, or no text; expected UTF-8: iconv"),
        ("t.csv", "filepath\ttitle\nx\ty\n".encode("utf-16-le"), "is UTF-16, or no text"),
        ("t.jsonl", '{"filepath": "x"}'.encode("utf-16-be"), "is UTF-16, or no text"),
        ("t.json", "[]", "has no rows"),
        ("t.json", '["a", "b"]', "none of its first entries is a JSON object"),
        ("t.json", '[{"filepath": "x", "title": "y"}] {"a": 1}', "goes on after its JSON list"),
        ("t.json", '[{"filepath": "x", "title": "y"}', "is not a whole JSON list"),
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
    dataset = table(images / "t.csv", "filepath\ttitle\n" + "images/0.jpg\ta\n" * 70)
    assert dataset.shard_sizes() == [32, 32, 6] and len(dataset) == 70


def test_fingerprint_and_pickling(images):
    text = "filepath\ttitle\nimages/0.jpg\ta\n"
    dataset = table(images / "t.csv", text)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.fingerprint == dataset.fingerprint and captions(again) == ["a"]
    assert table(images / "u.csv", text).fingerprint == dataset.fingerprint  # the name does not matter
    assert table(images / "t.csv", text.replace("\ta", "\tb")).fingerprint != dataset.fingerprint


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("columns", [("filepath", "title"), ("image", "caption"), ("file_name", "text")])
def test_usual_separators_and_columns_need_no_option(images, separator, columns):
    text = "\n".join(separator.join(row) for row in (columns, ("images/0.jpg", "a cat"))) + "\n"
    assert captions(table(images / "t.csv", text)) == ["a cat"]


def test_the_two_characters_backslash_t_are_a_tab(images):
    assert captions(table(images / "t.csv", "image\tcaption\nimages/0.jpg\ta, b\n", separator="\\t")) == [
        "a, b"
    ]


def test_an_opening_quote_costs_its_own_row_only(images):
    text = (
        "image,caption\n"
        'images/0.jpg,"open a dog\n'
        "images/1.jpg,a cat\n"
        'images/2.jpg,a 5" nail\n'
        'images/0.jpg,a "nice" dog\n'
        "images/1.jpg,last\n"
    )
    dataset = table(images / "t.csv", text)
    assert len(dataset) == 5
    with pytest.raises(BadSample, match=r"t.csv/row 0: broken row: a quotation mark that opens a field"):
        dataset.sample(0, np.random.default_rng(0))
    result = [text_of(dataset.sample(i, np.random.default_rng(0))["text"]) for i in range(1, 5)]
    assert result == ["a cat", 'a 5" nail', 'a "nice" dog', "last"]


def test_rows_counted_otherwise_are_other_data(images):
    swallowing = 'filepath\ttitle\nimages/0.jpg\t"a\n' + "images/1.jpg\tb\n" * 30
    wide = table(images / "t.csv", swallowing, quoting="minimal")
    assert wide.fingerprint != table(images / "t.csv", swallowing.replace('"', "'")).fingerprint


def test_a_json_list_is_a_table(images):
    rows = [
        {"image": f"images/{i}.jpg", "caption": c, "n": [1, {"a": "]"}]}
        for i, c in enumerate(["ü", "b", "c"])
    ]
    for name, text in {"list": json.dumps(rows, indent=1), "lines": "\n".join(map(json.dumps, rows))}.items():
        dataset = table(images / f"{name}.json", text)
        assert captions(dataset) == ["ü", "b", "c"]


def test_images_root_confines_and_without_it_paths_lead_anywhere(images):
    outside = images / "outside.jpg"
    outside.write_bytes(jpeg(1))
    rows = ["0.jpg", "../outside.jpg", str(outside), str(images / "images" / "1.jpg"), "../images/2.jpg"]
    text = "image\tcaption\n" + "".join(f"{row}\tcap\n" for row in rows)
    dataset = table(images / "t.csv", text, images_root=images / "images")
    for row, right in enumerate([True, False, False, True, True]):
        if right:
            dataset.sample(row, np.random.default_rng(0))
        else:
            with pytest.raises(BadSample, match="is outside images_root"):
                dataset.sample(row, np.random.default_rng(0))
    (images / "images" / "sub").mkdir()
    free = table(images / "images" / "sub" / "t.csv", text.replace("0.jpg\t", "../0.jpg\t", 1))
    free.sample(0, np.random.default_rng(0))  # relative to the table, which need not stand above its images
    free.sample(2, np.random.default_rng(0))


def test_an_image_that_is_a_pipe_is_a_bad_sample(images):
    os.mkfifo(images / "fifo")
    for path, what in (("fifo", "a pipe"), ("/dev/zero", "a device")):
        dataset = table(images / "t.csv", f"image\tcaption\n{path}\tcap\n")
        with pytest.raises(BadSample, match=f"not a regular file but {what}"):
            dataset.sample(0, np.random.default_rng(0))


def test_only_regular_files_are_tables(images):
    os.mkfifo(images / "t.csv")
    for path, what in ((images / "t.csv", "a pipe"), ("/dev/zero", "a device"), (images, "a folder")):
        with pytest.raises(DataError, match=f"cannot be read .not a regular file but {what}"):
            len(ImageTextTable(path, image_transform=Squeeze(8), tokenizer=Letters()))
