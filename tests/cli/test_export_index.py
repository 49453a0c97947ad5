"""The command that exports embeddings for inner-product search."""

from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.export_index import main
from hypvl.cli.extract_embeddings import main as extract
from tests.cli.test_image_traversals import checkpoint
from tests.embedding.test_search_index import read_index
from tests.evaluation.fakes import BLUE, GREEN, RED, image


def test_a_gallery_and_its_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--checkpoint-path", str(checkpoint(tmp_path, "meru")), "--device", "cpu"]
    for i, color in enumerate((RED, GREEN, BLUE)):
        image(tmp_path / "photos" / f"{i}.png", color)
    (tmp_path / "queries.txt").write_text("a red square\nblue\n")
    out = ["--output-dir", str(tmp_path / "kept")]
    photos = ["--image-dir", str(tmp_path / "photos"), "--num-workers", "0"]
    assert run_main(extract, [*model, *out, *photos]) == 0
    assert run_main(extract, [*model, *out, "--texts", str(tmp_path / "queries.txt")]) == 0

    def export(name: str, *more: str, weights: list[str] = model) -> int:
        kept = ["--embeddings", str(tmp_path / "kept"), "--output-dir", str(tmp_path / name)]
        return run_main(main, [*weights, *kept, *more])

    assert export("keys", "--modality", "image") == 0
    assert export("asked", "--modality", "text", "--side", "query") == 0
    assert "3 vectors of 9 numbers, Lorentz" in capsys.readouterr().out
    keys, about_keys = read_index(tmp_path / "keys")
    queries, about_queries = read_index(tmp_path / "asked")
    assert [Path(name).name for name in about_keys["ids"]] == ["0.png", "1.png", "2.png"]
    assert about_queries["ids"] == ["queries.txt:1", "queries.txt:2"]
    assert tuple(keys.shape) == (3, 9) and bool(
        (queries @ keys.T <= -1 + 1e-5).all()
    )  # Lorentz products at c = 1

    assert run_main(extract, [*model, *out, *photos, "--preprocess", "squeeze"]) == 0
    assert export("more", "--modality", "image") == 1
    assert "has 2 kinds of image embeddings that fit" in capsys.readouterr().err
    assert export("more", "--modality", "image", "--transform", "Squeeze(size=32)") == 0
    clip = ["--checkpoint-path", str(checkpoint(tmp_path, "clip")), "--device", "cpu"]
    assert export("other", "--modality", "image", weights=clip) == 1
    assert "holds embeddings of another model" in capsys.readouterr().err
