"""The classification suites over miniatures of their folders: every entry is built, or says what is missing."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import MissingDataError
from hypvl.evaluation.zero_shot import ZeroShotClassification
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import classification, i0t_classification, itra

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SUITES = {
    "eval_zero_shot_classification": classification,
    "eval_i0t_classification": i0t_classification,
    "eval_itra_classification": itra,
}


def load(name: str, root: Path) -> DictConfig:
    """The suite with its roots below ``root`` and nothing fetched."""
    config = LazyConfig.load(CONFIGS / f"{name}.py")
    for key, place in config.roots.items():
        config.roots[key] = str(place).replace("./datasets", str(root))
    if "download" in config:
        assert config.download is True
        config.download = False
    return config


@pytest.mark.parametrize("suite", SUITES)
def test_every_entry_is_built_from_its_miniature(suite: str, tmp_path: Path) -> None:
    SUITES[suite].make(tmp_path)
    config = load(suite, tmp_path)
    for name in config.evaluate:
        evaluator = instantiate(config.evaluate[name])
        assert isinstance(evaluator, ZeroShotClassification), name
        assert len(evaluator.class_prompts) == len(evaluator.classes) and all(evaluator.class_prompts)


@pytest.mark.parametrize("suite", SUITES)
def test_every_entry_is_missing_alone(suite: str, tmp_path: Path) -> None:
    config = load(suite, tmp_path)
    for name in config.evaluate:
        with pytest.raises(MissingDataError, match=str(tmp_path)):
            instantiate(config.evaluate[name])


def test_a_set_is_evaluated_with_both_styles(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    classification.dtd(tmp_path / "eval")
    config = load("eval_zero_shot_classification", tmp_path)
    config.encoding.num_workers = 0
    for style, count in (("clip", 16), ("subreddit", 8)):
        config.prompt_style = style
        evaluator = instantiate(config.evaluate.dtd)
        evaluator.tokenizer = FakeTokenizer()
        # The fake knows colours: call the classes by theirs.
        evaluator.class_prompts = [
            [text.replace("banded", "red").replace("dotted", "blue") for text in texts]
            for texts in evaluator.class_prompts
        ]
        result = evaluator(FakeModel())
        assert result.metrics["top1_accuracy"] == 100.0 and result.meta["prompts"] == count
