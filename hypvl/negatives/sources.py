"""Captions from tables, JSON Lines, COCO annotations and TAR shards, as rows in a fixed order."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hypvl.data.tokenizer import is_blank
from hypvl.errors import DataError
from hypvl.io.files import open_regular
from hypvl.io.redact import redact_url
from hypvl.io.table_text import MAX_FIELD_LINES, TableText
from hypvl.negatives.entries import (
    Entry,
    Format,
    SourceArguments,
    json_entries,
    read_json,
    table_entries,
    tar_entries,
)
from hypvl.negatives.generate import Row

_NO_CAPTION = "no caption"
_FORMATS: dict[str, Format] = {
    ".csv": "table", ".tsv": "table", ".txt": "table",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".tar": "tar",
}  # fmt: skip


class Captions:
    """The captions of some files. Iterating gives the same rows in the same order every time.

    ``total`` says about how many rows there are, ``fingerprint`` is of the content and of how it is read.

    Raises:
        DataError: when a file is missing or not of the format, here or while iterating.
    """

    def __init__(self, arguments: SourceArguments) -> None:
        self._arguments = arguments
        self._format = _format_of(arguments)
        self._contents: dict[Path, Any] = {}
        self.skipped: Counter[str] = Counter()  # why entries gave no row, counted by the latest iteration
        described = [
            self._format, arguments.image_column, arguments.caption_column, arguments.separator, arguments.quoting,
            arguments.image_prefix, arguments.limit,
        ]  # fmt: skip
        if arguments.max_field_lines != MAX_FIELD_LINES:
            described.append(arguments.max_field_lines)
        if self._format == "tar":
            from hypvl.data.shards import expand_shards  # reads images too, so it brings torch along

            self._shards = expand_shards(list(arguments.places))
            self.total, content = self._index_shards()
        else:
            self._paths = [Path(place).expanduser() for place in arguments.places]
            self.total, content = self._look_through()
        if arguments.limit is not None:
            self.total = min(self.total, arguments.limit)
        self.fingerprint = hashlib.sha256(f"{tuple(described)!r} {content}".encode()).hexdigest()

    def __iter__(self) -> Iterator[Row]:
        return islice(self._rows(), self._arguments.limit)

    def _rows(self) -> Iterator[Row]:
        self.skipped = Counter()
        position = 0
        for entry in self._entries():
            fault = _fault(entry)
            if fault is not None:
                self.skipped[fault] += 1
                continue
            image, prefix = entry.image, self._arguments.image_prefix
            captions = [caption for caption in entry.captions if not is_blank(caption)]
            if blank := len(entry.captions) - len(captions):
                self.skipped[_NO_CAPTION] += blank
            for i, caption in enumerate(captions):
                others = (*captions[:i], *captions[i + 1 :], *entry.others)
                yield Row(position, f"{prefix}{image}" if prefix else image, caption, entry.ids, others)
                position += 1

    def _entries(self) -> Iterator[Entry]:
        if self._format == "tar":
            yield from tar_entries(self._shards, self._arguments)
            return
        for path in self._paths:
            try:
                if self._format == "json":
                    yield from json_entries(path, self._contents[path], self._arguments)
                else:
                    yield from table_entries(path, self._table(path), self._arguments)
            except OSError as error:
                raise _unreadable(path, error) from error

    def _table(self, path: Path) -> TableText:
        return TableText(
            path,
            separator=self._arguments.separator,
            quoting=self._arguments.quoting,
            max_field_lines=self._arguments.max_field_lines,
            layout="json" if self._format == "jsonl" else "delimited",
        )

    def _look_through(self) -> tuple[int, str]:
        """(about how many rows, hash of the content)."""
        total, content = 0, hashlib.sha256()
        for path in self._paths:
            try:
                with open_regular(path) as file:
                    if file.read(2) == b"\x1f\x8b":
                        raise DataError(f"{path}: is compressed with gzip; unpack it (gunzip) first.")
                    file.seek(0)
                    while chunk := file.read(1 << 20):
                        content.update(chunk)
                        total += chunk.count(b"\n")
                if self._format == "json":
                    read = self._contents[path] = read_json(path)
                    total = len(read.get("annotations", ()) if isinstance(read, dict) else read)
            except OSError as error:
                raise _unreadable(path, error) from error
        return max(total - (self._format == "table"), 1), content.hexdigest()

    def _index_shards(self) -> tuple[int, str]:
        from hypvl.data.shards import shard_index
        from hypvl.data.storage import FileHandles, open_source

        handles = FileHandles()
        total, content = 0, hashlib.sha256()
        for place in self._shards:
            index = shard_index(open_source(place, handles))
            total += len(index)
            content.update(index.digest.encode())
        return total, content.hexdigest()


def is_tar(arguments: SourceArguments) -> bool:
    """Whether the captions are in TAR shards. Raises DataError where the format of the files is not clear."""
    return _format_of(arguments) == "tar"


def _format_of(arguments: SourceArguments) -> Format:
    if not arguments.places:
        raise DataError("no captions given; name files with --captions, or fetch COCO's with --download.")
    if arguments.format is not None:
        return arguments.format
    formats = set()
    for place in arguments.places:
        suffix = Path(place.split("?")[0]).suffix.lower()
        if suffix not in _FORMATS:
            raise DataError(
                f"{redact_url(place)}: its format is not clear from its name; expected {', '.join(_FORMATS)}, or "
                "--format."
            )
        formats.add(_FORMATS[suffix])
    if len(formats) > 1:
        raise DataError(
            f"captions of several formats ({', '.join(sorted(formats))}); give files of one at a time."
        )
    return formats.pop()


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); check --captions.")


def _fault(entry: Entry) -> str | None:
    if entry.fault is not None:
        return entry.fault
    texts = [one for one in entry.captions if isinstance(one, str)]
    if len(texts) < len(entry.captions) or all(map(is_blank, texts)):
        return _NO_CAPTION
    if isinstance(entry.image, bool) or not isinstance(entry.image, str | int) or entry.image == "":
        return "no image"
    try:
        "".join([*entry.captions, *entry.others, str(entry.image)]).encode()
    except UnicodeEncodeError:
        return "no valid Unicode"
    return None
