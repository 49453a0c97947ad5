"""The suites of hierarchy, audit and gap say singly what data they miss."""

from pathlib import Path

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import MissingDataError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SUITES = ("eval_hierarchical_metrics", "eval_geometry_audit", "eval_modality_gap")
ENTRIES = [
    (suite, str(name)) for suite in SUITES for name in LazyConfig.load(CONFIGS / f"{suite}.py").evaluate
]


@pytest.mark.parametrize(("suite", "name"), ENTRIES)
def test_missing_data_is_named(
    suite: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = LazyConfig.load(CONFIGS / f"{suite}.py")
    with pytest.raises(MissingDataError, match=r"datasets/") as caught:
        instantiate(config.evaluate[name])
    assert "\n" not in str(caught.value)
