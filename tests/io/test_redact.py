"""Secrets of addresses are never shown; everything else stays readable."""

import pytest

from hypvl.cli import evaluate, train
from hypvl.cli.common import run_main
from hypvl.io.redact import printable, redact_settings, redact_text, redact_url

TOKEN = "hf_" + "aB3" * 10


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a.tar", "https://host/a.tar"),
        ("http://h/{0..1}.tar?key=1&part=a*&download=true", "http://h/{0..1}.tar?key=1&part=a*&download=true"),
        ("https://me:pw@host:80/a@b.tar", "https://***@host:80/a@b.tar"),
        ("https://a@b:c@host", "https://***@host"),
        ("s3://AKIAABCDEFGHIJKLMNOP:x@bucket/k", "s3://***@bucket/k"),
        (
            "https://s3/x.tar?X-Amz-Credential=AK%2F2&X-Amz-Date=2026&X-Amz-Security-Token=q&X-Amz-Signature=z",
            "https://s3/x.tar?X-Amz-Credential=***&X-Amz-Date=2026&X-Amz-Security-Token=***&X-Amz-Signature=***",
        ),
        ("https://az/c/b?sv=2020&sig=a%2Bb%3D&se=1", "https://az/c/b?sv=2020&sig=***&se=1"),
        ("https://g/o?GoogleAccessId=me&Expires=1&Signature=s", "https://g/o?GoogleAccessId=***&Expires=1&Signature=***"),
        ("https://c/o?Key-Pair-Id=K&Policy=p", "https://c/o?Key-Pair-Id=***&Policy=***"),
        ("https://h/x?TOKEN=abc;api%5Fkey=1#access_token=9", "https://h/x?TOKEN=***;api%5Fkey=***#access_token=***"),
        (f"https://h/{TOKEN}/x", "https://h/***/x"),
        ("https:/me:pw@host/a.pth?token=x", "https:/***@host/a.pth?token=***"),  # taken for a path
        ("file:///home/me@work/a.pth", "file:///home/me@work/a.pth"),
        ("a/plain/path?token=", "a/plain/path?token="),
    ],
)  # fmt: skip
def test_addresses(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(shown) == shown


def test_an_address_that_was_taken_for_a_path_keeps_its_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    address = "https://me:pw@host/x.pth"
    for main, argv in (
        (evaluate.main, ["--checkpoint-path", address, "--config", "demo"]),
        (train.main, ["--config", address, "--num-gpus", "0"]),
    ):
        assert run_main(main, argv) in (1, 2)
        error = capsys.readouterr().err
        assert "https:/***@host/x.pth" in error and "pw" not in error


def test_texts_with_addresses_in_them() -> None:
    text = f"dataset.tarfiles=['https://u:p@h/a.tar?token=1','b.tar'] pipe:curl -H 'Authorization: Bearer {TOKEN}' x"
    assert redact_text(text) == (
        "dataset.tarfiles=['https://***@h/a.tar?token=***','b.tar'] pipe:curl -H 'Authorization: Bearer ***' x"
    )
    assert redact_text("authorization=Basic dXNlcg== end") == "authorization=Basic *** end"
    assert redact_text("a bearer of 3 tokens, ?author=me") == "a bearer of 3 tokens, ?author=me"
    assert redact_text(f"bearer {'x' * 20}") == "bearer ***"
    assert redact_text("a" * 1_000_000) == "a" * 1_000_000  # in linear time


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b]0;x\x07b\nc\u202e\udcff") == r"a\x1b]0;x\x07b\nc\u202e\udcff"
    assert printable("größer 犬") == "größer 犬"
    assert printable("x" * 400, limit=10) == "xxxxxxx..."


def test_values_of_secret_settings_are_hidden_and_others_stay() -> None:
    text = "a:\n  - token: x1\n  hub_token: x2\n  'api-key': x3\n  secret: null\n  tokenizer: clip\n  tokens_of: 7\n"
    shown = redact_settings(text)
    assert shown == text.replace("x1", "***").replace("x2", "***").replace("x3", "***")
    assert redact_settings("+wandb.api_key=x4") == "+wandb.api_key=***"
    assert (
        redact_settings("model.tokenizer=x4 url=https://h/?token=x5")
        == "model.tokenizer=x4 url=https://h/?token=***"
    )
