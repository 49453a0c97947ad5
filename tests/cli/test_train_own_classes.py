"""A class that only the Python config may name: said at the start of training, not by the evaluation days later."""

from pathlib import Path

import pytest

import hypvl
from hypvl.errors import ConfigError
from tests.cli.test_train import shards as shards, train

OWN = '''
from hypvl.encoders.heads import ScaledProjectionHead


class OwnHead(ScaledProjectionHead):
    """A head of somebody's own."""
'''


def test_a_class_of_ones_own_is_named_with_what_to_set(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "run"
    assert (
        train(folder, shards, "train.num_iterations=3", "model.visual_head._target_=own_parts.OwnHead") == 0
    )
    log = (folder / "log-rank0.txt").read_text()
    lines = [line for line in log.splitlines() if "WARNING" in line and "allow-list" in line]
    assert len(lines) == 1
    assert "model.visual_head: own_parts.OwnHead is not on the allow-list" in lines[0]
    assert '@configurable("model")' in lines[0]
    assert "HYPVL_EXTRA_TARGETS=own_parts.OwnHead" in lines[0]
    with pytest.raises(ConfigError, match=r"own_parts.OwnHead' .*allow-list"):  # what it warns of
        hypvl.create_model(folder)
    monkeypatch.setenv("HYPVL_EXTRA_TARGETS", "own_parts.OwnHead")  # what it says to do
    assert type(hypvl.create_model(folder).visual_head).__name__ == "OwnHead"


def test_runs_of_listed_classes_say_nothing(shards: str, tmp_path: Path) -> None:
    assert train(tmp_path / "run", shards, "train.num_iterations=3") == 0
    assert "allow-list" not in (tmp_path / "run" / "log-rank0.txt").read_text()
