"""The command that exports embeddings for inner-product search."""

from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.export_index import main
from hypvl.cli.extract_embeddings import main as extract
from hypvl.embedding.search_index import load_index
from tests.cli.test_image_traversals import checkpoint
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
    keys, asked = load_index(tmp_path / "keys"), load_index(tmp_path / "asked")
    assert [Path(name).name for name in keys.ids] == ["0.png", "1.png", "2.png"]
    assert asked.ids == ["queries.txt:1", "queries.txt:2"]
    products, where = keys.search(asked.vectors, 3)
    assert sorted(where[0].tolist()) == [0, 1, 2]
    assert bool((products <= -1 + 1e-5).all())  # Lorentz inner products at c = 1

    assert run_main(extract, [*model, *out, *photos, "--preprocess", "squeeze"]) == 0
    assert export("more", "--modality", "image") == 1
    assert "has 2 kinds of image embeddings that fit" in capsys.readouterr().err
    assert export("more", "--modality", "image", "--transform", "Squeeze(size=32)") == 0
    clip = ["--checkpoint-path", str(checkpoint(tmp_path, "clip")), "--device", "cpu"]
    assert export("other", "--modality", "image", weights=clip) == 1
    assert "holds embeddings of another model" in capsys.readouterr().err
