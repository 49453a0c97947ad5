"""JSON that came from outside is read within bounds, every failure a ``ValueError``; JSON of ours is always UTF-8."""

import json
import re
from typing import Any

_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
    r"""A value as JSON in UTF-8 with a line end; :func:`parse_json` gives back an equal value.

    What is no Unicode, as in names of files, and what steers a terminal is escaped, as in ``\udcff``.

    Raises:
        ValueError: for NaN and infinities.
        TypeError: for what JSON cannot hold.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    # They stand inside strings only; json escapes those below U+0020 itself.
    return (_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()
