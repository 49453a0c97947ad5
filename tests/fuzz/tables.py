"""Damaged tables and lists: CSV, TSV, JSON lines, JSON lists, Parquet."""

import functools
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from hypvl.data.gather.pair_list import ListOptions, open_list
from hypvl.data.share_gpt4v import ShareGPT4V
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.errors import UserError
from tests.data.helpers import jpeg
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import ELSEWHERE, Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.readers import crop, read_rows

ROWS = [{"image": f"{i}.jpg", "caption": f'a "cat", {i}\nof two lines'} for i in range(6)]
SUFFIXES = ("csv", "tsv", "jsonl", "json", "parquet")
TOKENIZER = get_tokenizer()


@functools.cache
def whole(suffix: str) -> bytes:
    """The rows as a file; as a list of addresses for Parquet."""
    if suffix == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        out = io.BytesIO()
        columns = {
            "url": [f"https://h/{i}.jpg" for i in range(50)],
            "caption": [f"cat {i}" for i in range(50)],
        }
        parquet.write_table(pa.table(columns), out)
        return out.getvalue()
    if suffix == "jsonl":
        return b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    if suffix == "json":
        return json.dumps(ROWS).encode()
    sign = "," if suffix == "csv" else "\t"
    lines = [sign.join(("image", "caption"))]
    lines += [sign.join((row["image"], '"' + row["caption"].replace('"', '""') + '"')) for row in ROWS]
    return "\n".join(lines).encode() + b"\n"


@functools.cache
def all_strange() -> list[tuple[str, str, bytes]]:
    return list(strange(str(ELSEWHERE)))


def strange(outside: str) -> Iterator[tuple[str, str, bytes]]:
    """(what it is, suffix, content)."""
    places = (
        "../outside/canary",
        f"{outside}/canary",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "/etc/passwd",
        "",
        ".",
        "..",
        "a\0b",
        "x" * 5000,
        "pipe:touch written",
        "file:///etc/passwd",
        "http://127.0.0.1:1/a.jpg",
        "~/x",
        "\x1b[31m",
        "0.jpg/..",
        "fifo",
        "folder",
        "loop",
        "$(touch written)",
        "CON",
        "0.jpg\n",
    )
    for place in places:
        rows = [{"image": place, "caption": "a cat"}, {"image": "0.jpg", "caption": "fine"}]
        yield f"image {place[:30]!r}", "jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        if "\n" not in place and "\0" not in place:
            yield f"image {place[:30]!r}", "tsv", f"image\tcaption\n{place}\ta cat\n0.jpg\tfine\n".encode()
    header = b"image,caption\n"
    bodies = {
        "an open quotation mark": b'0.jpg,"a' * 2000,
        "quotation marks": b'"' * 100_000,
        "separators": b"," * 1_000_000,
        "a long line": b"0.jpg," + b"a" * 10_000_000,
        "many lines": b"0.jpg,a\n" * 50_000,
        "NUL": b"0.jpg,\0\n",
        "CR": b"0.jpg,a\r0.jpg,b\r",
        "no rows": b"",
        "blank lines": b"\n" * 100_000,
        "not UTF-8": b"0.jpg,\xff\xfe\n0.jpg,fine\n",
        "fields": b"a,b,c,d,e\n0.jpg\n",
        "open lines": b'0.jpg,"a\n' + b"0.jpg,b\n" * 3000,
        "CRLF": b"0.jpg,a\r\n",
        "spaces": b" 0.jpg , a \n",
        "BOM inside": b"\xef\xbb\xbf0.jpg,a\n",
    }
    for name, body in bodies.items():
        yield name, "csv", header + body
    for name, text in {
        "an empty file": b"",
        "a BOM": b"\xef\xbb\xbf",
        "a header twice": header * 2,
        "one column": b"image\n0.jpg\n",
        "names twice": b"image,image,caption,caption\n0.jpg,1.jpg,a,b\n",
        "a header of 10 MB": b"c" * 10_000_000 + b",image,caption\n",
        "a header with a line end": b'"ima\nge",caption\n0.jpg,a\n',
        "UTF-16": "image,caption\n".encode("utf-16"),
        "gzip": b"\x1f\x8b" + bytes(99),
        "HTML": b"<html><table><tr><td>image",
        "a binary": bytes(range(256)) * 99,
        "many columns": b",".join(b"c%d" % i for i in range(20_000)),
    }.items():
        yield name, "csv", text
    fine = json.dumps({"image": "0.jpg", "caption": "fine"}).encode()
    lines = {
        "numbers": b"3\n4\n",
        "lists": b"[1]\n" + fine,
        "deep": b"[" * 100_000 + b"\n" + fine,
        "no JSON": b"{\n" + fine,
        "NaN": b'{"image": NaN}\n' + fine,
        "keys twice": b'{"image": "a", "image": "0.jpg", "caption": "a"}\n',
        "objects": b'{"image": {}, "caption": {}}\n' + fine,
        "long number": b'{"image": ' + b"1" * 10_000 + b"}\n" + fine,
        "surrogates": b'{"image": "\\ud800", "caption": "\\udfff"}\n' + fine,
        "many keys": json.dumps({f"k{i}": i for i in range(50_000)}).encode() + b"\n" + fine,
        "no end": fine * 3,
        "a list in lines": b"[\n" + fine + b"\n]\n",
    }
    for name, content in lines.items():
        yield name, "jsonl", content
    for name, content in {
        "not closed": b"[" + fine,
        "after its end": b"[" + fine + b"]]",
        "commas": b"[,,," + fine + b",,]",
        "empty": b"[]",
        "of lists": b"[[]]",
        "deep": b"[" * 200_000,
        "an object": b"{}",
        "numbers": b"[" + b"1," * 100_000 + b"1]",
        "long text": b'["' + b"a" * 20_000_000 + b'"]',
    }.items():
        yield f"a list {name}", "json", content


def _table(path: Path, **options: object) -> Outcome:
    table = ImageTextTable(path, image_transform=crop, tokenizer=TOKENIZER, **options)  # type: ignore[arg-type]
    table.prepare()
    if len(table) > 3000:
        return Outcome(good=len(table))
    read = read_rows(table)
    if len(read.good) + len(read.bad) != len(table):
        raise FuzzFailure(f"{len(table)} rows, but {len(read.good)} + {len(read.bad)} samples")
    return Outcome(len(read.good), len(read.bad))


def _list(path: Path) -> Outcome:
    pairs = open_list(ListOptions(path))
    rows = list(range(min(len(pairs), 200)))
    found = pairs.read(rows)
    if [pair.row for pair in found] != rows:
        raise FuzzFailure("rows are lost")
    bad = sum(bool(pair.error) for pair in found)
    return Outcome(len(found) - bad, bad)


def _read(box: Sandbox, suffix: str, content: bytes) -> Outcome:
    import os

    for i in range(6):
        (box.inputs / f"{i}.jpg").write_bytes(jpeg(i))
    os.mkfifo(box.inputs / "fifo")
    (box.inputs / "folder").mkdir()
    (box.inputs / "loop").symlink_to("loop")
    path = box.inputs / f"t.{suffix}"
    path.write_bytes(content)
    readers: list[Callable[[], Outcome]] = [lambda: _list(path)]
    if suffix != "parquet":
        readers += [
            lambda: _table(path),
            lambda: _table(path, images_root=box.inputs),
            lambda: _table(path, quoting="none"),
        ]
    if suffix == "json":
        readers.append(
            lambda: Outcome(
                len(ShareGPT4V(path, images_root=box.inputs, image_transform=crop, tokenizer=TOKENIZER))
            )
        )
    total = Outcome()
    for reader in readers:
        try:
            outcome = reader()
        except UserError:
            outcome = Outcome(refused=True)
        total = Outcome(total.good + outcome.good, total.bad + outcome.bad, total.refused or outcome.refused)
    return total


def _damaged(suffix: str, kind: str, seed: int) -> Callable[[Sandbox], Outcome]:
    return lambda box: _read(
        box, suffix, damaged(whole(suffix), kind, random.Random(f"{suffix}{kind}{seed}"))[0]
    )


def _strange(number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        _, suffix, content = all_strange()[number]
        return _read(box, suffix, content)

    return run


def table_cases() -> list[Case]:
    return [
        *(
            Case(f"table: {suffix} {name} {i}", _strange(i))
            for i, (name, suffix, _) in enumerate(all_strange())
        ),
        *(
            Case(f"table: {suffix} {kind} {seed}", _damaged(suffix, kind, seed))
            for seed in range(3)
            for suffix in SUFFIXES
            for kind in KINDS
        ),
    ]
