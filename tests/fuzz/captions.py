"""Absurd captions through every reader of captions: texts, JSON, tables, with the real tokenizer."""

import functools
import json
from collections.abc import Callable, Iterator

from hypvl.data.table import ImageTextTable
from hypvl.data.text_lines import TextLines
from hypvl.data.tokenizer import get_tokenizer
from hypvl.io.json_text import json_bytes
from tests.data.helpers import jpeg, write_tar
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.readers import crop, read_rows, read_shards

TOKENIZER = get_tokenizer()


def captions() -> Iterator[tuple[str, object]]:
    """(what it is, value of a caption)."""
    yield from {
        "NUL": "\0",
        "NUL inside": "a\0b",
        "surrogate": "\ud800",
        "surrogates": "\udfff\ud800 cat",
        "emoji": "👩‍👩‍👧‍👦" * 500,
        "escapes": "\x1b[31mred\x1b[0m",
        "title": "\x1b]0;x\x07",
        "bidi": "\u202eabc\u202c\u2066\u2069",
        "marks": "\u0301" * 5000,
        "zalgo": "a" + "\u0336\u0489\u0321" * 3000,
        "only spaces": " \t\n\u00a0\u2003",
        "zero width": "\u200b\u200c\u200d\ufeff",
        "HTML": "<script>alert(1)</script><img src=x onerror=1>",
        "entities": "&lt;" * 5000,
        "entity bomb": "&amp;" * 100_000,
        "nested entities": "&amp;" + "amp;" * 50_000,
        "markup": "[red]{}[/red] <red>{0}</red> %s",
        "long word": "a" * 10_000_000,
        "long text": "cat " * 2_500_000,
        "long spaces": " " * 10_000_000 + "cat",
        "lines": "a\n" * 100_000,
        "quotation marks": '"' * 9999,
        "commas and tabs": ",\t;|" * 999,
        "back slashes": "\\" * 9999,
        "U+0345": "\u0345" * 99,
        "special tokens": "<|endoftext|>" * 99,
        "start": "<|startoftext|>",
        "one letter": "a",
        "empty": "",
        "digits": "9" * 100_000,
        "other scripts": "ﷺ" * 2000 + "𒐫" * 2000,
        "private": "\ue000\U0010ffff\uffff\ufffe",
        "mixed": "".join(map(chr, range(0x300))),
        "mojibake": "â€œÃ©" * 3000,
        "title case": "ǅ" * 3000,
        "sharp s": "ẞŉǰ" * 3000,
        "dotless": "İ" * 10_000,
        "template": "${oc.env:HOME} {{7*7}} $(touch x) `touch x`",
        "formula": "=cmd|' /C calc'!A0",
        "path": "../../etc/passwd",
    }.items()
    yield from {
        "number": 7,
        "null": None,
        "true": True,
        "list": ["a", "", None, 3, "\0"],
        "list of none": [],
        "list of blanks": ["", " "],
        "dict": {"a": "b"},
        "float": 1e308,
        "list of lists": [["a"]],
        "long list": ["cat"] * 100_000,
        "deep": _deep(60),
    }.items()


def _deep(levels: int) -> object:
    value: object = "a"
    for _ in range(levels):
        value = [value]
    return value


RAW = {
    "not UTF-8": b"\xff\xfe\x00",
    "UTF-16": "cat".encode("utf-16"),
    "Latin-1": "café".encode("latin-1"),
    "overlong": b"\xc0\x80",
    "NaN": b'{"caption": NaN}',
    "no JSON": b"{",
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "repeated": b'{"caption": "a", "caption": 3}',
    "long number": b'{"caption": ' + b"9" * 100_000 + b"}",
    "array": b"[1]",
    "text": b'"caption"',
    "escape": b'{"caption": "\\ud83d"}',
    "bad escape": b'{"caption": "\\x"}',
    "BOM": b"\xef\xbb\xbf{}",
    "BOM UTF-16": '{"caption": "a"}'.encode("utf-16"),
    "infinity": b'{"caption": -Infinity}',
    "empty": b"",
    "zeros": bytes(9999),
}


def _json(value: object) -> bytes:
    return json.dumps({"caption": value}).encode("utf-8", "surrogatepass")


def _shard(box: Sandbox, extension: str, content: bytes) -> Outcome:
    members = [("0.jpg", jpeg(0)), (f"0.{extension}", content), ("1.jpg", jpeg(1)), ("1.txt", b"fine")]
    read = read_shards(write_tar(box.inputs / "0.tar", members))
    if set(read.good) | set(read.bad) != {"0", "1"} or "1" not in read.good:
        raise FuzzFailure(f"a sample is lost: {list(read.good)}, {read.bad}")
    return Outcome(len(read.good), len(read.bad))


def _tables(box: Sandbox, value: object) -> Outcome:
    (box.inputs / "0.jpg").write_bytes(jpeg(0))
    rows = [{"image": "0.jpg", "caption": value}, {"image": "0.jpg", "caption": "fine"}]
    (box.inputs / "t.jsonl").write_bytes(b"".join(map(json_bytes, rows)))
    (box.inputs / "t.json").write_bytes(json_bytes(rows))
    good = bad = 0
    for name in ("t.jsonl", "t.json"):
        read = read_rows(ImageTextTable(box.inputs / name, image_transform=crop, tokenizer=TOKENIZER))
        if len(read.good) + len(read.bad) != 2:
            raise FuzzFailure(f"a row is lost: {read}")
        good, bad = good + len(read.good), bad + len(read.bad)
    return Outcome(good, bad)


def _lines(box: Sandbox, value: object) -> Outcome:
    path = box.inputs / "t.txt"
    path.write_bytes(str(value).encode("utf-8", "surrogatepass") + b"\nfine\n")
    dataset = TextLines(path, tokenizer=TOKENIZER)
    for row in range(min(len(dataset), 50)):
        _outcome_of(dataset, row)
    return Outcome(good=1)


def _outcome_of(dataset: TextLines, row: int) -> None:
    import numpy as np

    from hypvl.data.sample import BadSample

    try:
        text = dataset.sample(row, np.random.default_rng(0))["text"]
    except BadSample:
        return
    if len(text) > TOKENIZER.context_length:
        raise FuzzFailure(f"{len(text)} ids")


def _run(function: Callable[..., Outcome], *values: object) -> Callable[[Sandbox], Outcome]:
    return functools.partial(_call, function, values)


def _call(function: Callable[..., Outcome], values: tuple[object, ...], box: Sandbox) -> Outcome:
    return function(box, *values)


def caption_cases() -> list[Case]:
    cases = []
    for name, value in captions():
        cases.append(Case(f"caption: json {name}", _run(_shard, "json", _json(value))))
        cases.append(Case(f"caption: tables {name}", _run(_tables, value)))
        if isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass")
            cases.append(Case(f"caption: txt {name}", _run(_shard, "txt", text)))
            cases.append(Case(f"caption: lines {name}", _run(_lines, value)))
    for name, content in RAW.items():
        cases += [Case(f"caption: raw {e} {name}", _run(_shard, e, content)) for e in ("json", "txt")]
    return cases
