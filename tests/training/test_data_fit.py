"""What does not fit is known before the first batch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import Tokenizer
from hypvl.data.transforms import RandomResizedCrop, ResizeCenterCrop
from hypvl.errors import ConfigError
from hypvl.training.data_fit import check_data_fits, take_from_model
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
