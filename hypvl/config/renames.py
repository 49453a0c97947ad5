"""Names of earlier versions in configs that are data: what they are called now.

``renames.json`` holds, under ``targets``, old target -> new target, and under ``arguments``, new target -> old
argument -> new argument. A config inside a checkpoint or beside a run is read through it, so that it loads for as long
as the weights do; Python configs are not: they name what is there.
"""

import functools
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl.config.plain import TARGET, Plain
from hypvl.io.json_text import parse_json

TABLE = Path(__file__).with_name("renames.json")


def with_current_names(data: Plain, *, source: str) -> Plain:
    """A copy of a config in which every target and argument that was renamed has its name of today.

    Args:
        data: The config as plain data.
        source: What it was read from, for the one warning that says how many names were old.
    """
    old: list[str] = []
    renamed = _renamed(data, old)
    if old:
        more = f" and {len(old) - 1} more" if len(old) > 1 else ""
        logger.warning(
            "{}: written by an earlier version; '{}'{} read by their new names", source, old[0], more
        )
    return renamed


def _renamed(node: Any, old: list[str]) -> Any:
    if isinstance(node, list):
        return [_renamed(item, old) for item in node]
    if not isinstance(node, dict):
        return node
    target = node.get(TARGET)
    if isinstance(target, str) and target in _table()["targets"]:
        old.append(target)
        target = _table()["targets"][target]
    names = _table()["arguments"].get(target, {}) if isinstance(target, str) else {}
    result: dict[Any, Any] = {}
    for key, value in node.items():
        if key in names and names[key] not in node:
            old.append(f"{key}= of {target}")
            key = names[key]
        result[key] = target if key == TARGET else _renamed(value, old)
    return result


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = parse_json(TABLE.read_bytes())
    return table
