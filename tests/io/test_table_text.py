from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.io.table_text import RowError, TableText


def table(tmp_path: Path, text: str | bytes, name: str = "t.csv", **options) -> TableText:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return TableText(path, **options)


def read(found: TableText) -> list[tuple[str, list[str] | str]]:
    return [
        (row.where, row.fields.kind if isinstance(row.fields, RowError) else list(row.fields.values()))
        for row in found.rows()
    ]


def test_rows_know_their_lines(tmp_path: Path) -> None:
    text = '\ufeff\n"a\nb",c\r\n\r\n1,"two\nlines, ""so"""\r\n\n3,4'
    result = table(tmp_path, text, separator=",")
    assert result.index.columns == ("a\nb", "c")
    assert read(result) == [("line 5", ["1", 'two\nlines, "so"']), ("line 8", ["3", "4"])]
    places = result.index.places.tolist()
    assert places[0] == text.encode().index(b"1,") and places[-1] == len(text.encode())


def test_fields_of_many_lines_up_to_a_bound(tmp_path: Path) -> None:
    def lines(count: int) -> str:
        return "a,b\n" + '1,"' + "\n".join(f"line {i}" for i in range(count)) + '"\n2,c\n'

    assert [fields for _, fields in read(table(tmp_path, lines(20)))][1] == ["2", "c"]
    assert len(table(tmp_path, lines(20))) == 2
    assert (
        len(table(tmp_path, lines(21))) == 22
    )  # no row of it is another caption: all but the last are broken
    broken = [fields for _, fields in read(table(tmp_path, lines(21)))]
    assert broken[0] == "a quotation mark that opens a field and does not close it"
    assert set(broken[1:-1]) == {"another number of fields than the header"} and broken[-1] == ["2", "c"]
    assert len(table(tmp_path, lines(21), max_field_lines=30)) == 2
    assert table(tmp_path, lines(21)).index.unclosed == 1


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        # closes in another row's mark, which does not end a field
        (['0.jpg,"a', '1.jpg,"b"', "2.jpg,c"], ["open", "b", "c"]),
        # closes where a field ends: the rows between have a file of the same kind in the same place
        (['0.jpg,"a', "1.jpg,b", '2.jpg,5"', "3.jpg,c"], ["open", "b", '5"', "c"]),
        # no file names: but the numbers of fields differ
        (['0,"a', "1,b", '2,5",', "3,c"], ["open", "b", "count", "c"]),
        # a caption of two lines, with commas as many as a row has
        (
            ['0.jpg,"a dog, running', 'over grass, fast"', "1.jpg,b"],
            ["a dog, running\nover grass, fast", "b"],
        ),
        (['0.jpg,"a', "1.jpg,b"], ["open", "b"]),
        (["0.jpg,b,", "1.jpg"], ["count", "count"]),
        ([r'0.jpg,"a \"b\" c"', r"1.jpg,a \"b\" c", r'2.jpg,"ends \""'], ["inside", r"a \"b\" c", "open"]),
    ],
)
def test_a_broken_quote_makes_no_other_caption(tmp_path: Path, lines: list[str], kinds: list[str]) -> None:
    words = {
        "open": "a quotation mark that opens a field and does not close it",
        "count": "another number of fields than the header",
        "inside": "a quotation mark inside a quoted field",
    }
    result = read(table(tmp_path, "\n".join(["image,caption", *lines])))
    assert [fields if isinstance(fields, str) else fields[1] for _, fields in result] == [
        words.get(kind, kind) for kind in kinds
    ]


def test_the_caption_may_come_first(tmp_path: Path) -> None:
    result = read(table(tmp_path, 'caption,image\n"a dog,0.jpg\na cat,1.jpg\nan owl",2.jpg\nlast,3.jpg\n'))
    assert [fields[0] if isinstance(fields, list) else None for _, fields in result] == [
        None, "a cat", 'an owl"', "last",
    ]  # fmt: skip
    two = read(table(tmp_path, 'caption,image\n"a dog,0.jpg\nan owl",1.jpg\n"two\nlines",2.jpg\n'))
    assert [fields[0] if isinstance(fields, list) else None for _, fields in two] == [
        None, 'an owl"', "two\nlines",
    ]  # fmt: skip


def test_a_row_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"t.csv, line 3: cannot be used: another .*\(3, expected 2.*set quoting=none"
    ):
        list(table(tmp_path, "a,b\n1,2\n1,2,3\n").usable_rows())
    with pytest.raises(
        DataError, match=r"t.json, entry 2: cannot be used: no JSON object \(a int\); mend the row\."
    ):
        list(table(tmp_path, '[{"a": 1},\n 2]', "t.json").usable_rows())
    with pytest.raises(
        DataError, match=r"t.jsonl, line 3: cannot be used: broken JSON \(brackets are nested"
    ):
        list(table(tmp_path, '{"a": 1}\n\n' + "[" * 100_000, "t.jsonl").usable_rows())


def test_another_encoding_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("a;b\n1;grün\n".encode("cp1252"))
    words = r"line 2: .*not UTF-8.*; expected UTF-8: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW\.$"
    with pytest.raises(DataError, match=words):
        list(TableText(path).usable_rows())


def test_quotation_marks_as_they_are(tmp_path: Path) -> None:
    result = table(tmp_path, 'a\tb\n1\t"x\n2\t""y"\n', quoting="none")
    assert read(result) == [("line 2", ["1", '"x']), ("line 3", ["2", '""y"'])]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"separator": ", "}, "separator: got ', '"),
        ({"separator": '"'}, "separator: got"),
        ({"quoting": "all"}, "quoting: got 'all'"),
        ({"max_field_lines": 0}, "max_field_lines: got 0"),
    ],
)
def test_options(tmp_path: Path, option: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TableText(tmp_path / "t.csv", **option)


def test_memory_is_eight_bytes_a_row(tmp_path: Path) -> None:
    result = table(tmp_path, "a\tb\n" + '1\t"x"\n' * 1000)
    assert result.index.places.nbytes == 8 * 1001
