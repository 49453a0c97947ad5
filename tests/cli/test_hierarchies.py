"""The commands that place images and texts in the space: rankings, histograms, ways between images."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hypvl.cli import image_interpolations, radius_histograms, rank_by_root
from hypvl.cli.common import run_main
from hypvl.embedding.store import EmbeddingStore
from tests.cli.test_image_traversals import KINDS, checkpoint
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, color in {"red": RED, "sub/green": GREEN, "blue": BLUE, "dark": (40, 0, 0)}.items():
        image(tmp_path / "photos" / f"{name}.png", color, size=(40, 30))
    return tmp_path / "photos"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("a dog\nan animal\na $x^ thing\na dog that runs in the snow\n")
    return path


def run(
    main: Callable[[Sequence[str]], int], tmp_path: Path, *more: str, kind: str = "meru", **state: Any
) -> int:
    weights = checkpoint(tmp_path, kind, **state)
    fixed = ["--checkpoint-path", str(weights), "--device", "cpu", "--num-workers", "0"]
    return run_main(main, [*fixed, "--output-dir", str(tmp_path / "out"), *more])


def result(tmp_path: Path, name: str) -> dict[str, Any]:
    with Image.open(tmp_path / "out" / f"{name}.png") as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 100
    results: dict[str, Any] = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_ranked_by_their_distance_to_the_root(
    kind: str, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(photos / "z.jpg")
    for i in range(6):
        image(photos / f"more{i}.png", (i, 0, 0))
    assert run(rank_by_root.main, tmp_path, "--input", str(photos), kind=kind) == 0
    results = result(tmp_path, "photos")
    radii = [item["radius"] for item in results["items"]]
    assert radii == sorted(radii) and len(radii) == 10
    assert {item["name"] for item in results["items"]} >= {"red.png", "sub/green.png", "blue.png", "dark.png"}
    assert all(Path(item["path"]).is_file() for item in results["items"])
    assert (results["modality"], results["order"], results["unreadable"]) == ("image", "radius", 1)
    assert results["root"] == ("items" if kind == "clip" else "geometry")
    printed = capsys.readouterr().out
    assert "sub/green.png" in printed and str(tmp_path / "out/photos.json") in printed


def test_texts_along_the_ray_through_one_of_them(tmp_path: Path, texts: Path, photos: Path) -> None:
    assert run(rank_by_root.main, tmp_path, "--input", str(texts), "--through-text", "a dog") == 0
    results = result(tmp_path, "texts")
    along = [item["along"] for item in results["items"]]
    assert along == sorted(along) and len(along) == 4
    (own,) = (item for item in results["items"] if item["name"] == "a dog")
    assert own["angle"] == pytest.approx(0.0, abs=0.01) and own["along"] == pytest.approx(own["radius"])
    assert (results["order"], results["through"]) == ("along", "a dog")
    through = ("--through-image", str(photos / "red.png"), "--max-angle", "0.5")
    assert run(rank_by_root.main, tmp_path, "--input", str(photos), *through) == 0
    assert "red.png" in [item["name"] for item in result(tmp_path, "photos")["items"]]
    assert run(rank_by_root.main, tmp_path, "--input", str(texts), *through[:2], "--max-angle", "0") == 1


def test_the_root_of_a_checkpoint_is_used(tmp_path: Path, texts: Path) -> None:
    root = torch.nn.functional.normalize(torch.ones(8), dim=0)
    assert run(rank_by_root.main, tmp_path, "--input", str(texts), kind="clip", root=root) == 0
    assert result(tmp_path, "texts")["root"] == "checkpoint"


def test_histograms_of_two_folders(
    tmp_path: Path, photos: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = (
        "--inputs",
        str(photos),
        str(photos / "sub"),
        str(texts),
        "--names",
        "all",
        "sub",
        "texts",
        "--bins",
        "5",
    )
    assert run(radius_histograms.main, tmp_path, *groups) == 0
    results = result(tmp_path, "radius_histograms")
    assert {name: (g["count"], g["modality"]) for name, g in results["groups"].items()} == {
        "all": (4, "image"), "sub": (1, "image"), "texts": (4, "text"),
    }  # fmt: skip
    assert len(results["edges"]) == 6 and [sum(g["counts"]) for g in results["groups"].values()] == [4, 1, 4]
    assert [(pair["first"], pair["second"]) for pair in results["nearer"]] == [
        ("all", "sub"), ("all", "texts"), ("sub", "texts"),
    ]  # fmt: skip
    assert "all nearer the root than texts" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["clip", "meru", "atmg"])
def test_what_lies_between_two_images(kind: str, tmp_path: Path, photos: Path, texts: Path) -> None:
    ends = ("--image-path", str(photos / "red.png"), "--target-image-path", str(photos / "blue.png"))
    more = ("--pool", str(photos), "--steps", "4", "--nearest", "2")
    assert run(image_interpolations.main, tmp_path, *ends, *more, kind=kind) == 0
    results = result(tmp_path, "red_to_blue")
    assert [step["weight"] for step in results["steps"]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert results["steps"][0]["names"][0] == "red.png" and results["steps"][-1]["names"][0] == "blue.png"
    assert all(len(step["paths"]) == 2 for step in results["steps"])
    assert (
        run(image_interpolations.main, tmp_path, *ends, "--pool", str(texts), "--way", "tangent", kind=kind)
        == 0
    )
    results = result(tmp_path, "red_to_blue")
    assert (results["modality"], results["way"], len(results["steps"])) == ("text", "tangent", 10)


def test_kept_embeddings_are_used(tmp_path: Path, photos: Path) -> None:
    kept = str(tmp_path / "kept")
    assert run(rank_by_root.main, tmp_path, "--input", str(photos), "--save-embeddings", kept) == 0
    first = result(tmp_path, "photos")
    (group,) = EmbeddingStore(kept).groups()
    assert len(group.all_rows()[0]) == 4
    assert run(rank_by_root.main, tmp_path, "--input", str(photos), "--embeddings", kept) == 0
    assert result(tmp_path, "photos")["items"] == first["items"]
    assert run(rank_by_root.main, tmp_path, "--input", str(photos), "--embeddings", kept, kind="clip") == 1


@pytest.mark.parametrize(
    ("main", "more", "said"),
    [
        (rank_by_root.main, ["--input", "none"], "--input: none is not there"),
        (
            rank_by_root.main,
            ["--input", ".", "--max-angle", "200"],
            "--max-angle: got 200.0; expected a number of at least 0 and up to 180",
        ),
        (radius_histograms.main, ["--inputs", "a", "a"], "--names: got a, a for 2 inputs"),
        (radius_histograms.main, ["--inputs", "a", "--bins", "0"], "--bins: got 0"),
        (
            image_interpolations.main,
            ["--image-path", "a", "--target-image-path", "b", "--pool", "c", "--steps", "1"],
            "--steps: got 1; expected a whole number of at least 2",
        ),
        (
            image_interpolations.main,
            ["--image-path", "a", "--target-image-path", "b", "--pool", "c"],
            "--pool: c is not there",
        ),
    ],
)
def test_wrong_flags_are_refused_before_the_model_is_read(
    main: Any, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, ["--checkpoint-path", "none.pth", *more]) == 2
    assert said in capsys.readouterr().err
