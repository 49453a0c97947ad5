"""JSON that came from outside: read within bounds, every failure a ``ValueError``."""

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
