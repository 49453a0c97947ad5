"""JSON that came from outside is read within bounds, every failure a ``ValueError``; JSON of ours is always UTF-8."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: for text that is not JSON, not UTF-8, or nested too deeply to be data.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply for JSON data") from error


def json_bytes(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> bytes:
    r"""A value as JSON in UTF-8 with a line end; what is not Unicode in it, as in names of files, is ``\udcff``.

    :func:`parse_json` gives back an equal value.

    Raises:
        ValueError: for NaN and infinities.
        TypeError: for what JSON cannot hold.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    # Lone surrogates stand inside strings only, where the escape that Python writes is that of JSON.
    return f"{text}\n".encode("utf-8", "backslashreplace")
