"""Evaluation sets of all suites with values that nobody expects: images and numbers, or one sentence."""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import UserError
from tests.evaluation import smoke

VALUES: list[Any] = [
    None, True, -1, 10**30, 10**400, 1.5, "", "x" * 1000, "\x1b[2J", [], {}, [None], {"a": 1}, [[[]]],
    "../../../etc/passwd", "/dev/zero", "\0", float("nan"), 1e308,
]  # fmt: skip
FIELDS = [
    "",
    "x",
    "-1",
    "9" * 400,
    "1e999",
    "nan",
    "\x1b[2J",
    "\0",
    "../../x",
    "\u0663",
    "\u00b2",
    "1.5",
    '"',
    "a\tb\tc",
]
SUFFIXES = ("", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".yaml", ".mat", ".bin")
LARGEST = 300_000  # bytes of a file that is changed
#: Files that an open of the set reads; filled while it is not None.
_opened: set[Path] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.add(Path(os.path.abspath(os.fsdecode(arguments[0]))))  # noqa: PTH100


def datasets(node: Any) -> Iterator[dict[str, Any]]:
    """The definitions of sets in a config."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("hypvl.datasets."):
            yield node
        for value in node.values():
            yield from datasets(value)
    elif isinstance(node, list):
        for value in node:
            yield from datasets(value)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(value: Any, draw: random.Random) -> Any:
    """A copy of JSON data with one value of another kind, or without it."""
    path = draw.choice(list(places(value))[:3000])
    if not path:
        return draw.choice(VALUES)
    copy = json.loads(json.dumps(value))
    node = copy
    for step in path[:-1]:
        node = node[step]
    if draw.random() < 0.2:
        del node[path[-1]]
    else:
        node[path[-1]] = draw.choice(VALUES)
    return copy


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def damaged(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.2:  # bytes
        flipped = bytearray(content[: draw.choice([len(content), len(content) // 2])])
        for _ in range(3 if flipped else 0):
            flipped[draw.randrange(len(flipped))] = draw.randrange(256)
        return bytes(flipped)
    whole = parsed(content.decode("utf-8", "replace"))
    if isinstance(whole, dict | list):
        return json.dumps(changed(whole, draw)).encode()
    lines = content.decode("utf-8", "replace").split("\n")
    at = draw.randrange(len(lines))
    row = parsed(lines[at])
    signs = [sign for sign in "\t,; |:" if sign in lines[at]]
    if isinstance(row, dict | list):
        lines[at] = json.dumps(changed(row, draw))
    elif signs:
        sign = draw.choice(signs)
        parts = lines[at].split(sign)
        parts[draw.randrange(len(parts))] = draw.choice(FIELDS)
        lines[at] = sign.join(parts)
    else:
        lines[at] = draw.choice(FIELDS)
    return "\n".join(lines).encode()


def use(definition: dict[str, Any]) -> None:
    data = instantiate(OmegaConf.create(definition))
    if not isinstance(data, list | dict) and hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        for i in range(min(2, len(data))):
            data[i]


@pytest.mark.slow
def test_sets_of_all_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    global _opened
    smoke.make_miniatures(tmp_path)
    monkeypatch.chdir(tmp_path)
    definitions: dict[str, dict[str, Any]] = {}
    for suite in smoke.suites():
        config = LazyConfig.load(smoke.ROOT / "configs" / f"eval_{suite}.py")
        if "download" in config:
            config.download = False
        for node in datasets(OmegaConf.to_container(config, resolve=True)):
            definitions.setdefault(json.dumps(node, sort_keys=True), node)
    sys.addaudithook(_hook)
    draw, cases, wrong = random.Random(0), 0, []
    for definition in definitions.values():
        _opened = set()
        use(definition)
        files, _opened = _opened, None
        for path in sorted(files):
            if tmp_path not in path.parents or path.suffix not in SUFFIXES or path.stat().st_size > LARGEST:
                continue
            content = path.read_bytes()
            for _ in range(10):
                path.write_bytes(damaged(content, draw))
                cases += 1
                try:
                    use(definition)
                except UserError:
                    pass
                except Exception as error:  # noqa: BLE001
                    wrong.append((definition["_target_"], path.name, repr(error)[:200]))
            path.write_bytes(content)
    assert wrong == [] and cases > 5000
    print(f"{len(definitions)} sets, {cases} cases")
