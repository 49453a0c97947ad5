"""Readers of is-a hierarchies: JSON in three forms, and ImageNet's lists of WordNet pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.files import class_folders, read_text, require_files, require_folder, text_lines
from hypvl.errors import DataError
from hypvl.io.json_text import expecting, parse_json
from hypvl.metrics.hierarchy import IsA

Order: TypeAlias = Literal["parent child", "child parent"]

_WHERE = (
    "ImageNet's is wordnet.is_a.txt (image-net.org, or rebuilt from WordNet 3.0 noun hypernyms), a line being "
    "`<parent id> <child id>`"
)


def read_is_a(path: str | Path, *, order: Order = "parent child") -> IsA:
    """A hierarchy from a file.

    - ``.json``: ``{node: {"parents": [node, ...]}}``; or ``{node: [parent, ...]}``; or a nested tree
      ``{"id": node, "children": [...]}`` (``name`` where there is no ``id``).
    - otherwise pairs of ids, one pair a line, separated by spaces: ``wordnet.is_a.txt``. The rest of a line is ignored,
      and so are lines that begin with ``#``.

    Args:
        order: Which id comes first in a line of pairs; ImageNet's file has the parent first.

    Raises:
        MissingDataError: when it is not there.
        DataError: when it is built differently, or the relation has a circle.
    """
    one_of("order", order, Order)
    path = Path(path)
    require_files([path], f"expected a hierarchy: {_WHERE}")
    text = read_text(path)
    if path.suffix == ".json":
        layout = '{node: {"parents": [nodes]}}, {node: [parents]} or a nested {"id": node, "children": [...]}'
        with expecting(path, f"a hierarchy: {layout}"):
            return IsA(_from_json(parse_json(text)))
    with expecting(path, f"pairs of ids ({_WHERE})"):
        return IsA(_from_pairs(text, order))


def read_words(path: str | Path) -> dict[str, str]:
    """Names of nodes: lines ``<id><tab>words`` (ImageNet's ``words.txt``), or spaces in place of the tab.

    Raises:
        MissingDataError: when it is not there.
        DataError: for a line without words.
    """
    names = {}
    for number, line in enumerate(text_lines(read_text(Path(path))), start=1):
        if line.strip():
            parts = line.strip().split(maxsplit=1)
            if len(parts) != 2:
                raise DataError(f"{path}, line {number}: got {line[:40]!r}; expected an id and its words.")
            names[parts[0]] = parts[1]
    return names


@configurable("evaluate")
def folder_nodes(root: str | Path) -> list[str]:
    """Class folders in sorted order, which is the order of the classes: the nodes of ImageNet's 1,000 ids.

    Raises:
        MissingDataError: when the folder is not there.
    """
    root = Path(root)
    require_folder(root, "class folders named by WordNet ids (n01440764 ...)")
    return class_folders(root)


def _from_pairs(text: str, order: str) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {}
    for number, line in enumerate(text_lines(text), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise ValueError(f"line {number} is {line[:40]!r}")
        parent, child = words[:2] if order == "parent child" else words[1::-1]
        parents.setdefault(parent, [])
        parents.setdefault(child, []).append(parent)
    if not parents:
        raise ValueError("it has no pairs")
    return parents


def _from_json(content: Any) -> dict[str, list[str]]:
    if not isinstance(content, Mapping) or not content:
        raise ValueError("it is not an object with entries")
    if "children" in content and isinstance(content["children"], list):
        return _from_nested(content)
    parents = {
        node: entry["parents"] if isinstance(entry, Mapping) else entry for node, entry in content.items()
    }
    wrong = next((entry for entry in parents.values() if not isinstance(entry, list)), None)
    if wrong is not None:
        raise ValueError(f"an entry is {str(wrong)[:40]!r}")
    return parents


def _from_nested(tree: Mapping[str, Any]) -> dict[str, list[str]]:
    """Parents of each node, without recursion; a node in several places has several parents."""
    parents: dict[str, list[str]] = {_name(tree): []}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for child in node.get("children") or ():
            above = parents.setdefault(_name(child), [])
            if _name(node) not in above:
                above.append(_name(node))
            waiting.append(child)
    return parents


def _name(node: Mapping[str, Any]) -> str:
    return str(node["id"] if "id" in node else node["name"])
