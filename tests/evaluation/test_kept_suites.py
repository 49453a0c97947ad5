"""Every suite gives the same results from kept embeddings, and then encodes nothing."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from hypvl.cli.evaluate import main as evaluate
from hypvl.config import LazyConfig
from hypvl.embedding import encode as features
from tests.evaluation.smoke import ONLY, ROOT, few_prompts, inside, make_checkpoint, make_miniatures, suites

# Of the larger suites a part, and of those that train the model themselves not that.
PARTS = ONLY | {"elevater": "mnist/zero_shot,mnist/few_shot_5,mnist/linear_probe"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniatures")
    make_miniatures(folder)
    make_checkpoint("meru", folder)
    return folder


def run(suite: str, place: Path, name: str, *more: str) -> dict[str, Any]:
    config = ROOT / "configs" / f"eval_{suite}.py"
    output = place / name / suite
    argv = [
        "--config",
        str(config),
        "--checkpoint-path",
        str(place / "meru.pth"),
        "--output-dir",
        str(output),
    ]
    argv += ["--device", "cpu", "--num-workers", "0", "--batch-size", "8"]
    with inside(place), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate([*argv, *more])
    results: dict[str, Any] = json.loads((output / "results.json").read_text())["results"]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("suite", suites())
def test_kept_embeddings_change_nothing(suite: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["--only", PARTS[suite]] if suite in PARTS else []
    config = LazyConfig.load(ROOT / "configs" / f"eval_{suite}.py")
    if "folds" in config:
        few.append("folds=2")
    few += few_prompts(config)
    kept = str(place / "kept")
    plain = run(suite, place, "plain", *few)
    saved = run(suite, place, "saved", "--save-embeddings", kept, *few)
    encoded: list[int] = []
    keep = features._on_cpu  # what every block that encode_images and encode_texts encode goes through

    def counting(block: Tensor) -> Tensor:
        encoded.append(len(block))
        return keep(block)

    monkeypatch.setattr(features, "_on_cpu", counting)
    taken = run(suite, place, "taken", "--embeddings", kept, *few)
    assert {name: entry["status"] for name, entry in saved.items()} == {
        name: e["status"] for name, e in plain.items()
    }
    # Not those of `plain`: texts that occur twice are encoded once, and a batch of others may round its last bit
    # another way, which decides between scores of random weights that are nearly equal.
    for name, entry in saved.items():
        assert taken[name]["status"] == entry["status"], f"{name}: {taken[name].get('reason')}"
        assert taken[name]["metrics"] == entry["metrics"], name
        assert taken[name].get("items") == entry.get("items"), name
    assert not encoded
