"""`scripts/elevater_submission.py` as it is typed."""

import json
import zipfile
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.elevater_submission import main
from hypvl.evaluation.prediction_files import LEADERBOARD_NAMES
from tests.report.test_elevater import seed, write


def test_a_zip_per_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = LEADERBOARD_NAMES.values()
    write(tmp_path / "in" / "few_shot_5", *(seed(i, dataset=name) for name in every for i in (0, 1, 2)))
    write(tmp_path / "in" / "zero_shot", seed(0, n_shot=0))
    arguments = ["--predictions", str(tmp_path / "in"), "--output-dir", str(tmp_path / "out")]
    assert main([*arguments, "--protocol", "few_shot_5", "--model-name", "mine"]) == 0
    assert "few_shot_5.zip: 20 sets, 3 seeds each" in capsys.readouterr().out
    assert main(arguments) == 1  # zero-shot lacks 19
    out = capsys.readouterr().out
    assert "zero_shot.zip: 1 sets, 1 seeds each" in out and "missing: caltech-101, cifar-10" in out
    with zipfile.ZipFile(tmp_path / "out" / "zero_shot.zip") as archive:
        assert json.loads(archive.read("mnist.json"))["n_shot"] == 0


def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "zero_shot").mkdir(parents=True)
    arguments = ["--predictions", str(tmp_path / "in"), "--output-dir", str(tmp_path)]
    assert run_main(main, [*arguments, "--protocol", "few_shot_5"]) == 1
    assert "has no few_shot_5; found zero_shot" in capsys.readouterr().err
    assert run_main(main, arguments) == 1
    assert "holds no prediction files" in capsys.readouterr().err
    assert run_main(main, ["--predictions", "nowhere", "--output-dir", str(tmp_path)]) == 1
    assert "is not a folder" in capsys.readouterr().err
