"""Texts of data reach the screen, logs and pages as text: no terminal control, no markup, no format, no secrets."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from rich.console import Console

from hypvl.cli.common import run_main, show
from hypvl.data.bad_samples import BadSamples
from hypvl.data.mappers import GenericMapper
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards
from hypvl.data.table import ImageTextTable
from hypvl.errors import DataError
from hypvl.io.json_text import json_bytes
from hypvl.io.redact import printable, redact_command, redacted
from hypvl.report.tables import print_table, rich_table
from hypvl.training.hooks.sinks import ConsoleLine, log_to_console, log_to_file
from hypvl.training.provenance import provenance
from tests.data.helpers import Letters, write_tar

#: Colours, window titles, answers to the shell, links, other lines, other directions, markup and formats.
HOSTILE = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[5n", "\x9b31m", "a\rb", "a\nERROR fake line", "\x08\x08\x08",
    "\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", "\u202egpj.exe", "\u2066a\u2069", "\u200eb", "\u061cc", "\ufeffd",
    "[red]bold[/red]", "[/]", "[link=https://evil]x[/link]", "<red>x</red>", "</>", "{}", "{0}", "{message}",
    "{record[extra]}", "%s %d", "${oc.env:HOME}", "\ud800",
)  # fmt: skip
FORBIDDEN = set("\x1b\x9b\x07\x08\r\u202e\u2066\u2069\u200e\u061c\ufeff\ud800")


def clean(text: str, *, lines: int | None = None) -> bool:
    return not FORBIDDEN & set(text) and (lines is None or text.count("\n") == lines)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    log_to_file(tmp_path, rank=0)
    yield tmp_path / "log-rank0.txt"
    logger.remove()


def test_a_hostile_text_is_shown_as_it_is_without_its_controls() -> None:
    for text in HOSTILE:
        assert clean(printable(text), lines=0), text
    assert printable("<red>{}</red> [bold]") == "<red>{}</red> [bold]"


def test_log_messages(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_console(rank=0)
    log_to_file(tmp_path, rank=0)
    for text in HOSTILE:
        logger.warning(text)
        logger.warning("{}: {}", text, text)
        logger.info("key {}", (text, {"a": text}))
    for shown in (capsys.readouterr().err, log.read_text(errors="surrogatepass")):
        assert clean(shown.replace("\n", ""))
        for text in ("[red]bold[/red]", "<red>x</red>", "{message}", "{record[extra]}"):
            assert f"| {text}" in shown or f" {text}" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_lines(terminal: bool, log: Path) -> None:
    """Names of loss terms come from a config."""
    out = io.StringIO()
    for text in HOSTILE:
        line = ConsoleLine(
            9, console=Console(file=out, force_terminal=terminal, color_system=None, width=200)
        )
        record = {
            "iteration": 1,
            "loss": 1.0,
            text: 2.0,
            "lr": 0.1,
            "samples_per_second": 1.0,
            "data_wait": 0.0,
        }
        line.write({**record, "memory_gb": 1.0, "eta_seconds": 1.0})
        line.close()
    shown = out.getvalue()
    for text in HOSTILE[:13]:
        assert text not in shown, text


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        rich_table([[text, text, "1"] for text in HOSTILE], header=["a", *HOSTILE[:1], "b"], title=HOSTILE[0])
    )
    print_table(rich_table([["a", "b", "c"]], header=["a", "b", "c"], title="[/red] {}"))
    shown = capsys.readouterr().out
    assert clean(shown) and "[red]bold[/red]" in shown and "[/red] {}" in shown


def test_errors_and_lines_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for text in HOSTILE:

        def fails(argv: object, text: str = text) -> int:
            raise DataError(f"{text}: is broken, token=https://me:pw@h")

        assert run_main(fails, []) == 1
        show(text)
        shown = capsys.readouterr()
        assert clean(shown.err, lines=1) and clean(shown.out, lines=1), text
        assert "pw" not in shown.err
    logger.remove()


def test_keys_and_captions_of_samples(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def crop(image, generator):  # type: ignore[no-untyped-def]
        return image

    names = [text.replace("/", "_").encode("utf-8", "surrogatepass") for text in HOSTILE]
    stems = [
        f"{i}{name.decode('utf-8', 'surrogateescape').replace('.exe', '')}" for i, name in enumerate(names)
    ]
    members = [(f"{stem}.jpg", b"<html>") for stem in stems]
    members += [(f"{stem}.txt", name) for stem, name in zip(stems, names, strict=True)]
    path = write_tar(tmp_path / "\x1b[31m.tar", sorted(members))
    shards = ImageTextShards([str(path)], GenericMapper(), crop, Letters())
    (tmp_path / "t.jsonl").write_bytes(
        b"".join(json_bytes({"image": text, "caption": text}) for text in HOSTILE)
    )
    table = ImageTextTable(tmp_path / "t.jsonl", image_transform=crop, tokenizer=Letters())
    bad = BadSamples(max_fraction=0.0)
    for dataset in (shards, table):
        for row in range(len(dataset)):
            with pytest.raises(BadSample) as caught:
                dataset.sample(row, np.random.default_rng(0))
            bad.add(0, [(caught.value.key, caught.value.reason)])
    log_to_console(rank=0)
    log_to_file(tmp_path, rank=0)
    while bad.unreported:
        logger.warning("{}", bad.report())
        del bad.unreported[:3]
    with pytest.raises(DataError) as refused:
        bad.check(final=True)
    assert clean(capsys.readouterr().err.replace("\n", "")) and clean(log.read_text().replace("\n", ""))
    assert len(bad.first) == 20 and str(refused.value)


def test_json_that_is_printed() -> None:
    for text in HOSTILE:
        shown = json_bytes({text: text}).decode()
        assert clean(shown, lines=1) and json.loads(shown) == {text: text}


SECRET = "s3cr3t-value"


def test_secrets_are_in_no_record_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["hypvl", "train", "--hub-token", SECRET, f"train.wandb.api_key={SECRET}", f"a=https://me:{SECRET}@h/x?token={SECRET}",
               f"--password={SECRET}", f"+x.secret: {SECRET}", "dataset.tokenizer=clip"]  # fmt: skip
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    record = provenance(seed=0, data_fingerprint="x", config_text="")
    assert SECRET not in json.dumps(record)
    assert record["command"][-1] == "dataset.tokenizer=clip" and "***" in record["command"][3]
    assert redact_command([]) == []


def test_secrets_are_in_no_settings() -> None:
    data = {
        "wandb": {"api_key": SECRET, "mode": "online"},
        "storage": [{"secret_access_key": SECRET, "password": SECRET, "url": f"s3://{SECRET}:x@b/k?sig={SECRET}"}],
        "tokenizer": "clip", "pad_token": "<pad>", "tokens": 7, "token": "",
    }  # fmt: skip
    kept = redacted(data)
    assert SECRET not in json.dumps(kept)
    assert (kept["tokenizer"], kept["pad_token"], kept["tokens"], kept["token"]) == ("clip", "<pad>", 7, "")
    assert data["wandb"]["api_key"] == SECRET  # a copy
