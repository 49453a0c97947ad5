"""The retrieval suites on miniatures of their data sets."""

from pathlib import Path
from typing import Any

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import MissingDataError
from hypvl.evaluation.protocol import EvaluationResult
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import i0t_retrieval, retrieval

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def suite(name: str, root: Path) -> Any:
    config = LazyConfig.load(str(CONFIGS / f"eval_{name}.py"))
    for key, folder in config.roots.items():
        config.roots[key] = str(root / Path(folder).relative_to("datasets"))
    config.encoding.num_workers = 0
    return config


def measure(config: Any, name: str) -> EvaluationResult:
    evaluator = instantiate(config.evaluate[name])
    evaluator.tokenizer = FakeTokenizer()
    return evaluator(FakeModel())


@pytest.mark.parametrize("name", ["zero_shot_retrieval", "i0t_retrieval"])
def test_each_entry_is_missing_by_itself(name: str, tmp_path: Path) -> None:
    config = suite(name, tmp_path)
    for entry in config.evaluate:
        with pytest.raises(MissingDataError):
            instantiate(config.evaluate[entry])


def test_zero_shot_retrieval(tmp_path: Path) -> None:
    retrieval.make(tmp_path)
    config = suite("zero_shot_retrieval", tmp_path)
    results = {name: measure(config, name) for name in config.evaluate}
    sizes = {name: (result.meta["images"], result.meta["captions"]) for name, result in results.items()}
    assert sizes == {
        "coco": (5, 10),
        "coco_5k": (5, 10),
        "coco_1k": (5, 10),
        "eccv_caption": (5, 10),
        "flickr30k": (4, 8),
        "nocaps": (3, 6),
        "urban1k": (5, 5),
        "docci": (4, 4),
    }
    # Colours are found but for the second of the two red images, which ties with the first.
    assert results["coco"].metrics["text_to_image_recall@1"] == pytest.approx(80.0)
    assert results["coco_1k"].metrics["text_to_image_recall@1"] == 100.0  # each of five galleries holds one
    assert results["flickr30k"].metrics["mean_recall"] == pytest.approx(100.0)
    # Both red images are right in the file; one of the five right captions is outside the gallery.
    eccv = results["eccv_caption"].metrics
    assert eccv["text_to_image_map@r"] == 100.0
    assert eccv["image_to_text_r_precision"] == pytest.approx((80 + 100) / 2)


def test_i0t_retrieval(tmp_path: Path) -> None:
    i0t_retrieval.make(tmp_path)
    config = suite("i0t_retrieval", tmp_path)
    results = {name: measure(config, name) for name in config.evaluate}
    sizes = {name: (result.meta["images"], result.meta["captions"]) for name, result in results.items()}
    assert sizes == {"coco_gold": (5, 5), "flickr_gold": (5, 5), "nocaps_gold": (3, 3), "share_gpt4v": (5, 5)}
    assert results["nocaps_gold"].metrics["mean_recall"] == 100.0
