"""The allow-list of configs is what the marks in the code say."""

import json
import sys
from pathlib import Path

import pytest

from hypvl.allowlist import configurable, marked_targets
from hypvl.config.targets import LIST


def test_the_list_is_written_from_the_marks() -> None:
    text = json.dumps(marked_targets(), indent=1) + "\n"
    if LIST.read_text(encoding="utf-8") == text:
        return
    LIST.write_text(text, encoding="utf-8")
    pytest.fail(f"{LIST.name} did not hold what @configurable marks; it is written anew now: commit it.")


def test_marks_are_collected_by_part_and_exact_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "marked_package"
    package.mkdir()
    (package / "__init__.py").write_text("from marked_package.inner import Loss\n")
    (package / "inner.py").write_text(
        "import functools\n"
        "from hypvl.allowlist import configurable\n"
        "@configurable('train')\nclass Loss: ...\n"
        "class Unmarked(Loss): ...\n"
        "@configurable('evaluate', 'dataset')\n@functools.lru_cache\ndef reader(): ...\n"
        "alias = Loss\n_private = reader\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    assert marked_targets("marked_package") == {
        "model": [],
        "dataset": ["marked_package.inner.reader"],
        "optim": ["torch.optim.AdamW", "torch.optim.adamw.AdamW"],
        "train": ["marked_package.inner.Loss"],
        "evaluate": ["marked_package.inner.reader"],
    }
    assert {"marked_package", "marked_package.inner"} <= set(sys.modules)


def test_a_mark_names_parts_of_a_config() -> None:
    with pytest.raises(ValueError, match=r"got \('losses',\); expected some of model, dataset"):
        configurable("losses")
    with pytest.raises(ValueError, match=r"got \(\)"):
        configurable()
