"""Correlation of scores with ratings, by hand and on the miniature of Flickr8k."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.datasets.candidate_captions import JudgedCaptions
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError, UserError
from hypvl.evaluation.clip_score_correlation import CaptionCorrelation
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeTokenizer
from tests.evaluation.miniatures import flickr8k
from tests.evaluation.test_clip_score import CAPTIONS, PLAIN, REFERENCES, FlatModel, write

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "eval_caption_correlation.py"


def rated(data: JudgedCaptions, ratings: list[float] | None) -> JudgedCaptions:
    return JudgedCaptions(data.images, data.keys, data.image, data.captions, data.references, ratings)


class TestCaptionCorrelation(EvaluatorContract):
    evaluator_class = CaptionCorrelation

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        data = write(folder, CAPTIONS, references=REFERENCES, bad=bad)
        ratings = [4.0, 1.0, 2.0, 3.0] + [1.0] * bad
        return CaptionCorrelation(rated(data, ratings), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FlatModel:
        return FlatModel()

    def test_by_hand(self, tmp_path: Path) -> None:
        evaluator = self.make(tmp_path, bad=1)
        result = evaluator(self.model())
        assert evaluator.main_metric == "clip_score_kendall_c"
        # Scores 2.5, 0, x, x with ratings 4, 1, 2, 3: five of six pairs agree, one is tied.
        assert result.metrics["clip_score_kendall_b"] == pytest.approx(100 * 5 / (5 * 6) ** 0.5)
        # Three different scores, four ratings: 2 * 5 / (16 * 2 / 3).
        assert result.metrics["clip_score_kendall_c"] == pytest.approx(100 * 10 * 3 / 32)
        # PAC-S is proportional to CLIPScore.
        for kind in ("kendall_b", "kendall_c", "pearson"):
            assert result.metrics[f"pac_score_{kind}"] == pytest.approx(result.metrics[f"clip_score_{kind}"])
        # The model's score: 1, 0, 1, 1: three pairs agree, three are tied.
        assert result.metrics["model_score_kendall_b"] == pytest.approx(100 * 3 / (3 * 6) ** 0.5)
        assert (result.meta["rows"], result.meta["unreadable"]) == (4, 1)
        assert result.items["rating"] == [4.0, 1.0, 2.0, 3.0] and result.items["key"][0] == "a.png"

    def test_a_score_that_is_constant_is_left_out_with_a_warning(self, tmp_path: Path) -> None:
        class Near(FlatModel):
            def scores(self, query: Tensor, key: Tensor, **modalities: str) -> Tensor:
                return -torch.cdist(query, key)

        # All cosines are 0; distances to texts of two colours are longer.
        data = write(tmp_path, {"a": "blue", "b": "red blue", "c": "green", "d": "green blue"})
        evaluator = CaptionCorrelation(
            rated(data, [2, 1, 2, 1]), kendall="b", encoding=PLAIN, tokenizer=FakeTokenizer()
        )
        result = evaluator(Near())
        assert evaluator.main_metric == "clip_score_kendall_b"
        assert not any(name.startswith(("clip", "pac")) for name in result.metrics)
        assert result.metrics["model_score_kendall_b"] == pytest.approx(100.0)
        warning = "clip_score is 0 for all 4 captions; a constant has no correlation."
        assert result.meta["warnings"][0] == warning and result.meta["main_metric"] in result.metrics

    def test_a_model_whose_scores_are_all_constant_is_an_error(self, tmp_path: Path) -> None:
        data = write(tmp_path, {"a": "red", "d": "red"})
        evaluator = CaptionCorrelation(rated(data, [1, 2]), encoding=PLAIN, tokenizer=FakeTokenizer())
        with pytest.raises(UserError, match="each is the same for all captions"):
            evaluator(self.model())

    def test_captions_without_ratings_are_an_error(self, tmp_path: Path) -> None:
        data = write(tmp_path, CAPTIONS)
        with pytest.raises(DataError, match="have no ratings"):
            CaptionCorrelation(rated(data, None))
        same = CaptionCorrelation(rated(data, [2.0] * 4), encoding=PLAIN, tokenizer=FakeTokenizer())
        with pytest.raises(DataError, match="all 4 ratings of readable images are 2; expected several"):
            same(self.model())
        with pytest.raises(ValueError, match="kendall: got 'a'"):
            CaptionCorrelation(rated(data, [1, 2, 3, 4]), kendall="a")  # type: ignore[arg-type]


def suite(root: Path) -> Any:
    config = LazyConfig.load(str(CONFIG))
    config.roots.flickr8k = str(root / "flickr8k")
    config.encoding.num_workers = 0
    return config


@pytest.mark.parametrize("make", [flickr8k.make, flickr8k.make_text])
def test_the_suite(make: Any, tmp_path: Path) -> None:
    make(tmp_path)
    config = suite(tmp_path)
    rows, mains = {}, {}
    for name in config.evaluate:
        evaluator = instantiate(config.evaluate[name])
        evaluator.tokenizer = FakeTokenizer()
        result = evaluator(FlatModel())
        rows[name], mains[name] = result.meta["rows"], evaluator.main_metric
        assert result.metrics[evaluator.main_metric] > 50.0  # people and colours agree
    assert rows == {"flickr8k_expert": 15, "flickr8k_cf": 6}
    assert mains == {"flickr8k_expert": "clip_score_kendall_c", "flickr8k_cf": "clip_score_kendall_b"}


def test_the_suite_without_data(tmp_path: Path) -> None:
    config = suite(tmp_path)
    for name in config.evaluate:
        with pytest.raises(MissingDataError, match="flickr8k"):
            instantiate(config.evaluate[name])
