"""Reads the number files of the parity suite, from tests/reference/ or HYPVL_REFERENCE_DIR.

A file the folder lacks is skipped by name; a folder that does not exist or holds none of the files is an
error. Tests take their cases from :func:`cases`, so that another folder with longer or shorter lists runs.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

DEFAULT_DIR = Path(__file__).resolve().parents[1] / "reference"
FILES = (
    "lorentz_ops", "lorentz_edge", "losses", "losses_2rank", "model_forward", "tokenizer",
    "scheduler_optim", "sincos", "traversal", "eval_scores", "state_dict_manifest",
    "cyclip", "cloob", "i0t", "finegrained", "ranking_metrics", "clustering_metrics", "clipscore", "itra_losses",
    "adapters", "hyper3", "phyclip", "state_dict_manifest_2026", "uncha",
)  # fmt: skip


def reference_dir() -> Path:
    """The folder of number files; raises when it is missing or holds none of them."""
    folder = Path(os.environ.get("HYPVL_REFERENCE_DIR") or DEFAULT_DIR)
    if not folder.is_dir():
        raise pytest.UsageError(f"HYPVL_REFERENCE_DIR: {folder} is not a folder; name one with number files.")
    if not any((folder / f"{name}.json").is_file() for name in FILES):
        raise pytest.UsageError(f"HYPVL_REFERENCE_DIR: {folder} holds none of {', '.join(FILES)} (.json).")
    return folder


@functools.cache
def load(name: str) -> dict[str, Any] | None:
    """The content of ``<name>.json``, or None when the folder lacks it."""
    path = reference_dir() / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def cases(name: str, *keys: str) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize``: one per entry of the list or dict at ``keys``.

    A dict gives ``(key, value)`` pairs. A missing file or key gives one skipped parameter that says so.
    """
    content: Any = load(name)
    if content is None:
        return [_skip(f"{name}.json is not in {reference_dir()}")]
    for key in keys:
        if key not in content:
            return [_skip(f"{name}.json has no {'/'.join(keys)}")]
        content = content[key]
    if isinstance(content, dict):
        return [pytest.param((key, value), id=f"{name}-{key}") for key, value in content.items()]
    return [
        pytest.param(case, id=f"{name}-{i}-{case.get('name', '') if isinstance(case, dict) else ''}")
        for i, case in enumerate(content)
    ]


def number(value: Any) -> Any:
    """Reference numbers as floats: "nan", "inf" and "-inf" are strings in the files; None stays None."""
    if isinstance(value, list):
        return [number(v) for v in value]
    return value if value is None else float(value)


def _skip(reason: str) -> Any:
    return pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))
