"""What does not fit is known before the first batch."""

from types import SimpleNamespace
from typing import Any

import pytest

from hypvl.errors import ConfigError
from hypvl.training.run import check_data_fits
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
