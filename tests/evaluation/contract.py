"""What every evaluator keeps, whatever it measures; subclass :class:`EvaluatorContract` for each."""

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hypvl.embedding.encode import Encoding
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError, UserError
from hypvl.evaluation.protocol import Evaluator
from hypvl.metrics.bootstrap import bootstrap_intervals
from tests.evaluation.fakes import FakeModel


def is_score(metric: str) -> bool:
    """Whether a metric is a percentage that counts hits, so that it has a chance level."""
    return ("accuracy" in metric or "recall" in metric) and not metric.endswith("_chance")


class EvaluatorContract:
    """Subclasses name the class, build one over at least 4 images, and may bring their own model."""

    evaluator_class: ClassVar[type[Evaluator]]

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        """An evaluator over files it writes into ``folder``, ``bad`` more of which are no images."""
        raise NotImplementedError

    def model(self) -> EvaluableModel:
        """A model that has something to find."""
        return FakeModel()

    def diverged(self) -> EvaluableModel:
        """A model whose scores are NaN."""
        model = self.model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(math.nan)
        return model

    def make(self, folder: Path, *, bad: int = 0, **encoding: object) -> Evaluator:
        settings = {"batch_size": 3, "num_workers": 0, "max_bad_fraction": 0.5} | encoding
        return self.build(folder, encoding=Encoding(**settings), bad=bad)  # type: ignore[arg-type]

    def test_builds_the_class_it_names(self, tmp_path: Path) -> None:
        assert type(self.make(tmp_path)) is self.evaluator_class

    def test_metrics_are_numbers_and_shares_have_chance_beside_them(self, tmp_path: Path) -> None:
        evaluator = self.make(tmp_path)
        result = evaluator(self.model())
        assert evaluator.main_metric in result.metrics
        for name, value in result.metrics.items():
            assert type(value) is float and math.isfinite(value), name
            if is_score(name) or name.endswith("_chance"):
                assert 0.0 <= value <= 100.0, name
            if is_score(name):
                assert 0.0 < result.metrics[f"{name}_chance"] <= 100.0

    def test_samples_average_to_their_metric(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        assert set(result.strata) <= set(result.samples)
        for name, values in result.samples.items():
            groups: dict[object, list[float]] = {}
            for value, group in zip(values, result.strata.get(name, [0] * len(values)), strict=True):
                groups.setdefault(group, []).append(value)
            means = [math.fsum(group) / len(group) for group in groups.values()]
            assert math.fsum(means) / len(means) == pytest.approx(result.metrics[name], abs=1e-9), name

    def test_intervals_of_shares_are_shares(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        intervals = bootstrap_intervals(result.samples, strata=result.strata)
        assert set(intervals) == {name for name, values in result.samples.items() if values}
        for name in filter(is_score, intervals):
            assert 0.0 <= intervals[name][0] <= intervals[name][1] <= 100.0, name

    def test_result_survives_json(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        for part in (result.metrics, result.items, result.meta):
            assert json.loads(json.dumps(part, allow_nan=False)) == part

    @pytest.mark.parametrize("training", [True, False])
    def test_model_is_left_as_it_was(self, tmp_path: Path, training: bool) -> None:
        model = self.model()
        model.train(training)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        self.make(tmp_path)(model)
        assert model.training is training
        for parameter, value in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, value) and parameter.grad is None
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()

    def test_nothing_is_drawn_from_the_main_generator(self, tmp_path: Path) -> None:
        before = torch.get_rng_state()
        self.make(tmp_path)(self.model())
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 100}, {"num_workers": 2}])
    def test_batches_and_workers_do_not_matter(self, tmp_path: Path, settings: dict[str, int]) -> None:
        evaluator = self.make(tmp_path / "a", bad=1)
        other = self.make(tmp_path / "b", bad=1, **settings)
        first, second = evaluator(self.model()), other(self.model())
        assert first.metrics == second.metrics
        assert first.items == second.items

    def test_broken_images_are_counted_and_never_help(self, tmp_path: Path) -> None:
        clean = self.make(tmp_path / "a")(self.model())
        result = self.make(tmp_path / "b", bad=1)(self.model())
        assert (clean.meta["unreadable"], result.meta["unreadable"]) == (0, 1)
        for name in filter(is_score, clean.metrics):
            assert result.metrics[name] <= clean.metrics[name]

    def test_too_many_broken_images_are_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot be read, more than max_bad_fraction=0\.1"):
            self.make(tmp_path, bad=2, max_bad_fraction=0.1)(self.model())

    @pytest.mark.parametrize("modality", ["image", "text"])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_one_row_that_is_not_finite_is_an_error(
        self, tmp_path: Path, modality: str, value: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluator, model = self.make(tmp_path), self.model()
        encode = getattr(model, f"encode_{modality}", None)
        if encode is None:
            return  # a model of one modality, for an evaluator that asks for no other
        asked = []

        def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
            rows = encode(*args, **kwargs).clone()
            asked.append(len(rows))
            rows[-1] = value
            return rows

        monkeypatch.setattr(model, f"encode_{modality}", broken)
        try:
            evaluator(model)
        except (UserError, ValueError) as error:
            assert "NaN" in str(error) or "finite" in str(error)
        else:
            assert not asked

    def test_a_model_that_has_diverged_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="NaN"):
            self.make(tmp_path)(self.diverged())
