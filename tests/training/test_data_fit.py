"""What does not fit is known before the first batch."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import Tokenizer
from hypvl.data.transforms import RandomResizedCrop, ResizeCenterCrop
from hypvl.errors import ConfigError
from hypvl.losses.base import LossTerm, Objective
from hypvl.losses.class_cross_entropy import ClassCrossEntropy
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.hard_negative import HardNegativeContrastive
from hypvl.training.data_fit import check_data_fits, check_sample_fits, take_from_model
from hypvl.training.step import Learner
from tests.training.tiny import tiny_model


def data(size: Any = 16, **tokenizer: Any) -> SimpleNamespace:
    said = {"context_length": 8, "vocab_size": 50, "eot_token": 49, **tokenizer}
    return SimpleNamespace(image_transform=SimpleNamespace(size=size), tokenizer=SimpleNamespace(**said))


def test_what_fits_and_what_says_nothing() -> None:
    check_data_fits(tiny_model("clip"), data())
    check_data_fits(tiny_model("clip"), data(context_length=4, vocab_size=50))  # shorter captions fit
    check_data_fits(tiny_model("clip"), SimpleNamespace())
    check_data_fits(tiny_model("clip"), SimpleNamespace(tokenizer=len, image_transform=abs))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"context_length": 9},
            r"^dataset\.tokenizer\.context_length: got 9, but model\.textual\.context_length is 8",
        ),
        (
            {"vocab_size": 51},
            r"^model\.textual\.vocab_size: got 50, but the tokenizer of the data has 51 ids",
        ),
        ({"eot_token": 48}, r"^model\.textual\.eot_token: got 49, but texts .* end with 48"),
        ({"size": 32}, r"^dataset\.image_transform\.size: got 32, but model\.visual\.image_size is 16"),
    ],
)
def test_what_would_fail_later_names_both_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_data_fits(tiny_model("clip"), data(**wrong))


def test_an_encoder_of_any_size_takes_any_images() -> None:
    model = tiny_model("clip")
    model.visual.fixed_size = False
    check_data_fits(model, data(size=32))


def test_what_is_left_open_comes_from_the_model() -> None:
    model = tiny_model("clip")
    model.visual.interpolation = "bilinear"
    dataset = ImageTextTable("t.csv", image_transform=RandomResizedCrop(None), tokenizer=None)
    take_from_model(model, dataset)
    transform: Any = dataset.image_transform
    assert (transform.size, transform.interpolation) == (16, "bilinear")
    tokenizer: Any = dataset.tokenizer
    assert type(tokenizer) is Tokenizer and tokenizer.context_length == 8


def test_what_is_said_stays() -> None:
    said = ResizeCenterCrop(32, interpolation="bicubic")
    dataset = SimpleNamespace(tokenizer=len, image_transform=said)
    model = tiny_model("clip")
    model.visual.interpolation = "bilinear"
    take_from_model(model, dataset)
    assert dataset.tokenizer is len and (said.size, said.interpolation) == (32, "bicubic")
    take_from_model(model, SimpleNamespace())  # nothing that could be left open


def test_a_text_encoder_without_a_tokenizer_says_so() -> None:
    model = tiny_model("clip")
    model.textual = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"dataset\.tokenizer: got null.*but a Linear has none; name one"):
        take_from_model(model, SimpleNamespace(tokenizer=None))


def test_tokens_of_another_vocabulary_are_refused() -> None:
    model = tiny_model("clip")
    model.textual.vocabulary, model.textual.pad_token = "bert", 1
    with pytest.raises(
        ConfigError, match=r"its vocabulary is 'clip', but that of model\.textual is 'bert'; set .* null"
    ):
        check_data_fits(model, data(vocabulary="clip"))
    with pytest.raises(ConfigError, match=r"its token that fills rows is 0, but that of model\.textual is 1"):
        check_data_fits(model, data(vocabulary="bert", pad_token=0))
    check_data_fits(model, data(vocabulary="bert", pad_token=1))


class Samples:
    """A data set whose first rows are bad."""

    def __init__(self, sample: dict[str, Any], *, bad: int = 0, classes: int | None = None) -> None:
        self.rows, self.bad = [sample] * 40, bad
        self.mapper = SimpleNamespace(classes=[str(i) for i in range(classes or 0)])

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, row: int, generator: np.random.Generator) -> dict[str, Any]:
        if row < self.bad:
            raise BadSample(str(row), "broken")
        return {"key": str(row), **self.rows[row]}


def learner(term: LossTerm) -> Learner:
    return Learner(tiny_model("clip"), Objective({"term": term}))


def test_data_that_give_what_the_objective_asks_for() -> None:
    pair = {"image": 0, "text": 0}
    check_sample_fits(learner(Contrastive()), Samples(pair), seed=0)
    check_sample_fits(learner(Contrastive(labels="labels")), Samples({**pair, "labels": 1}), seed=0)
    check_sample_fits(
        learner(Contrastive(labels="labels")), Samples(pair, bad=40), seed=0
    )  # training says so
    check_sample_fits(learner(Contrastive()), Samples(pair, bad=20, classes=1000), seed=0)


@pytest.mark.parametrize("bad", [0, 20])
def test_an_entry_that_the_data_lack_is_named(bad: int) -> None:
    data = Samples({"image": 0, "text": 0}, bad=bad)
    for term, entry in (
        (Contrastive(labels="classes"), "classes"),
        (Contrastive([["image:crops.1", "text"]]), r"crops\.1"),
        (HardNegativeContrastive(), "negative_(text|mask)"),
    ):
        with pytest.raises(
            ConfigError, match=rf"^train\.objective: needs '{entry}', but the batch has only image,"
        ):
            check_sample_fits(learner(term), data, seed=0)
    masked = Samples({"image": 0, "text": 0, "negative_text": 0})
    with pytest.raises(ConfigError, match=r"needs 'negative_mask'.*dataset\.mapper\.negatives=true"):
        check_sample_fits(learner(HardNegativeContrastive()), masked, seed=0)


def test_more_classes_than_logits_are_refused() -> None:
    term = ClassCrossEntropy(view="image")  # the tiny model has 12 features
    data = {"image": 0, "text": 0, "labels": 1}
    check_sample_fits(learner(term), Samples(data, classes=12), seed=0)
    said = r"^train\.objective\.terms\.term: image:image@student has 12 logits, but the data have 13 classes; give its"
    with pytest.raises(ConfigError, match=said):
        check_sample_fits(learner(term), Samples(data, classes=13), seed=0)


def test_each_source_of_a_mixture_is_checked_at_its_place() -> None:
    model = tiny_model("clip")
    good, wrong = data(), data(size=32)
    check_data_fits(model, SimpleNamespace(sources={"a": good}))
    with pytest.raises(ConfigError, match=r"^dataset\.sources\.b\.image_transform\.size: got 32"):
        check_data_fits(model, SimpleNamespace(sources={"a": good, "b": wrong}))
    with pytest.raises(ConfigError, match=r"^dataset\.sources\.b\.tokenizer\.context_length: got 9"):
        check_data_fits(model, SimpleNamespace(sources={"a": good, "b": data(context_length=9)}))
    open_size = data(size=None)
    take_from_model(model, SimpleNamespace(sources={"a": open_size}))
    assert open_size.image_transform.size == 16


def test_sources_with_other_fields_are_refused() -> None:
    pair = Samples({"image": 0, "text": 0})
    labelled = Samples({"image": 0, "text": 0, "labels": 1})
    check_sample_fits(learner(Contrastive()), SimpleNamespace(sources={"a": pair, "b": pair}), seed=0)
    with pytest.raises(
        ConfigError, match=r"^dataset\.sources\.a: its samples have no 'labels', which those of b"
    ):
        check_sample_fits(learner(Contrastive()), SimpleNamespace(sources={"a": pair, "b": labelled}), seed=0)
    with pytest.raises(ConfigError, match=r"needs 'labels'"):
        sources = SimpleNamespace(sources={"b": labelled, "a": pair})
        check_sample_fits(learner(Contrastive(labels="labels")), sources, seed=0)
