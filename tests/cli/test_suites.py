"""What is refused of a suite before anything is measured."""

from pathlib import Path

import pytest
import yaml

from hypvl.cli.common import run_main
from hypvl.cli.evaluate import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "0"), "--batch-size: got 0; expected a whole number of at least 1"),
        (("--only", ""), "--only: '' is not in"),
        (
            ("--output", "results.txt"),
            "--output: got results.txt; expected the name of a file that ends with .json",
        ),
    ],
)
def test_what_no_evaluation_could_survive_is_said_at_the_start(
    arguments: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "eval.yaml"
    encoding = {"_target_": "hypvl.embedding.encode.Encoding", "batch_size": 4}
    path.write_text(yaml.safe_dump({"encoding": encoding, "evaluate": {"fine": {}}}), encoding="utf-8")
    code = run_main(
        main, ["--config", str(path), "--checkpoint-path", str(tmp_path / "gone.pth"), *arguments]
    )
    assert code == 2 and message in capsys.readouterr().err
