"""The command that makes hard negatives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.make_hard_negatives import main
from tests.negatives.test_download import server  # noqa: F401  (a fixture)
from tests.negatives.test_sources import COCO

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions_train2014.json"
    path.write_text(json.dumps(COCO))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_makes_negatives_and_prints_their_number(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "negatives.jsonl"
    flags = ["--captions", str(captions), "--output", str(output), "--image-prefix", "train2014/"]
    assert main(flags) == 0
    lines = read(output)
    assert [line["image"] for line in lines] == [f"train2014/COCO_train2014_{i}.jpg" for i in (4, 9, 4)]
    assert lines[1]["adj_aug_caption"] != "A red bus." and lines[1]["adj_aug_caption"].endswith(" bus.")
    out = capsys.readouterr().out
    assert "attribute" in out and "66.7 %" in out and "1: 1 no known adjective" in out
    assert f"{output}: 3 captions," in out.replace("\n", "") and "(written)" in out
    assert main(flags) == 0
    assert "(up to date)" in capsys.readouterr().out
    assert main([*flags, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_flags_reach_the_job(captions: Path, tmp_path: Path) -> None:
    output = tmp_path / "negatives.jsonl"
    flags = [
        "--captions",
        str(captions),
        "--output",
        str(output),
        "--quiet",
        "--types",
        "object",
        "--limit",
        "2",
    ]
    assert main(flags) == 0
    lines = read(output)
    assert [line["valid_caption"] for line in lines] == [[1, 0, 0, 1, 0]] * 2
    others = {json.dumps(read(output))}
    for seed in range(1, 4):
        assert main([*flags, "--seed", str(seed), "--overwrite"]) == 0
        others.add(json.dumps(read(output)))
    assert len(others) > 1


def test_a_folder_has_a_file_for_each_caption_file(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.csv").write_text("image,caption\n7.jpg,A red bus.\n")
    output = tmp_path / "out"
    flags = ["--format", "json", "--captions", str(captions), "--output-dir", str(output)]
    assert run_main(main, flags) == 0
    assert [path.name for path in output.glob("*.jsonl")] == ["captions_train2014.jsonl"]
    assert f"{output}: 3 captions," in capsys.readouterr().out.replace("\n", "")
    tables = ["--captions", str(tmp_path / "more.csv"), str(tmp_path / "none.csv")]
    assert run_main(main, [*tables, "--output-dir", str(tmp_path / "two"), "--workers", "1"]) == 1
    err = capsys.readouterr().err
    assert "none: " in err and "error: 1 of 2 caption files failed; the same command tries them again." in err
    assert len(read(tmp_path / "two" / "more.jsonl")) == 1
    share = ["--engine", "slurm-array", "--index", "2", "--count", "3"]
    assert run_main(main, [*tables, "--output-dir", str(tmp_path / "two"), *share]) == 0
    assert capsys.readouterr().err == "there are no caption files for this task: its share is empty.\n"


def test_downloads(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from tests.negatives.test_download import archive

    running = request.getfixturevalue("server")
    running.content = archive(content=json.dumps(COCO).encode())
    output = tmp_path / "negatives.jsonl"
    assert (
        main(["--download", str(tmp_path / "coco"), "--url", running.url, "--output", str(output), "--quiet"])
        == 0
    )
    assert [line["image"] for line in read(output)] == [
        f"train2014/COCO_train2014_{i}.jpg" for i in (4, 9, 4)
    ]


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        ([], "error: give either --captions PATH or --download FOLDER", 2),
        (
            ["--captions", "x.csv", "--download", "y"],
            "error: give either --captions PATH or --download FOLDER",
            2,
        ),
        (["--captions", "no.csv"], "error: no.csv: cannot be read (No such file or directory)", 1),
        (
            ["--captions", "x.csv", "--num-workers", "-1"],
            "error: --workers: got -1; expected a whole number of at least 0",
            2,
        ),
        (
            ["--captions", "x.csv", "--engine", "ray"],
            "error: --engine ray: needs --output-dir, a file for each caption file",
            2,
        ),
        (
            ["--captions", "x.csv", "--limit", "0"],
            "error: --limit: got 0; expected a whole number of at least 1",
            2,
        ),
        (
            ["--captions", "x.csv", "--guess-top", "3"],
            "error: --guess-top 3: expected more than --guess-skip 3",
            2,
        ),
        (
            ["--captions", "x.csv", "--separator", "||"],
            "error: --separator: got '||'; expected one character",
            2,
        ),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str, code: int
) -> None:
    assert run_main(main, [*flags, "--output", str(tmp_path / "out.jsonl")]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1
    assert captured.out == "" and not list(tmp_path.iterdir())


def test_a_backend_whose_packages_are_missing_is_never_replaced(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    for backend, extra in (("lemminflect", "negatives"), ("masked-lm", "negatives-lm")):
        flags = ["--captions", str(captions), "--output", str(tmp_path / "out.jsonl"), "--backend", backend]
        assert run_main(main, flags) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"error: --backend {backend} needs ") and f"hypvl[{extra}]" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_device_that_cannot_be_used(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--captions", str(captions), "--output", str(tmp_path / "out.jsonl"), "--backend", "masked-lm"]
    assert run_main(main, [*flags, "--device", "nix"]) == 2
    assert "error: --device: 'nix' cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_help_answers_at_once() -> None:
    start = time.process_time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "scripts/make_hard_negatives.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--backend {builtin,lemminflect,masked-lm}" in done.stdout
    assert time.perf_counter() - start[1] < 5  # 0.2 s on an idle machine


@pytest.mark.slow
def test_ctrl_c_with_workers_prints_one_word_and_loses_no_part(tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    rows = [f"{i}.jpg,a red dog {i} sitting on a bed under a table" for i in range(20_000)]
    captions.write_text("\n".join(["image,caption", *rows]))

    def command(output: Path) -> list[str]:
        return [
            sys.executable, "scripts/make_hard_negatives.py", "--captions", str(captions), "--output", str(output),
            "--quiet", "--part-size", "200",
        ]  # fmt: skip

    output, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    running = subprocess.Popen(
        [*command(output), "--num-workers", "2"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )  # fmt: skip
    parts = tmp_path / "out.jsonl.parts"
    deadline = time.monotonic() + 60
    while not list(parts.glob("part-*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to every process of the job
    assert running.communicate(timeout=60) == ("", "interrupted\n")
    assert running.returncode == 130
    assert 0 < len(list(parts.glob("part-*.jsonl"))) < 100 and not output.exists()
    subprocess.run(command(output), cwd=ROOT, check=True)
    subprocess.run(command(whole), cwd=ROOT, check=True)
    assert output.read_bytes() == whole.read_bytes()
