"""The command that writes models and embeddings for other programs."""

import importlib
import json
import pathlib
from pathlib import Path

import pytest
from PIL import Image

from hypvl.cli.common import run_main
from hypvl.cli.export import main
from hypvl.cli.extract_embeddings import main as extract
from tests.cli.test_image_traversals import checkpoint
from tests.evaluation.fakes import BLUE, GREEN, RED, image

ROOT = Path(__file__).parents[2]


def model_flags(folder: Path, kind: str) -> list[str]:
    return ["--checkpoint-path", str(checkpoint(folder, kind)), "--device", "cpu"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, color in enumerate((RED, GREEN, BLUE)):
        image(folder / ("warm" if i == 0 else "cold") / f"{i}.png", color)
    return folder


def test_stores_of_images_of_texts_and_of_saved_embeddings(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    lancedb = pytest.importorskip("lancedb")
    model = model_flags(tmp_path, "meru")
    reading = ["--num-workers", "0"]
    out = ["--output", str(tmp_path / "a")]
    assert run_main(main, ["--to", "faiss", *model, "--image-dir", str(photos), *out, *reading]) == 0
    about = json.loads((tmp_path / "a" / "index.json").read_text())
    assert (about["geometry"], about["modality"], about["side"]) == ("Lorentz", "image", "key")
    assert [Path(name).name for name in about["ids"]] == ["1.png", "2.png", "0.png"]
    assert (tmp_path / "a" / "index.faiss").is_file()

    (tmp_path / "texts.txt").write_text("a red square\nblue\n")
    texts = ["--texts", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "b")]
    assert run_main(main, ["--to", "lancedb", *model, *texts]) == 0
    table = lancedb.connect(str(tmp_path / "b")).open_table("embeddings")
    assert table.to_arrow()["text"].to_pylist() == ["a red square", "blue"]

    kept = ["--image-dir", str(photos), "--output-dir", str(tmp_path / "kept")]
    assert run_main(extract, [*model, *kept, *reading]) == 0
    saved = ["--embeddings", str(tmp_path / "kept"), "--modality", "image", "--output", str(tmp_path / "c")]
    assert run_main(main, ["--to", "faiss", *model, *saved]) == 0
    same = [tmp_path / name / "vectors.safetensors" for name in "ac"]
    assert same[0].read_bytes() == same[1].read_bytes()
    assert "3 vectors of 9 numbers, Lorentz" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))  # no drafts


def test_errors_are_one_sentence(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_flags(tmp_path, "atmg")

    def error(*more: str, to: str = "faiss", output: str = "out") -> str:
        argv = ["--to", to, *model, "--output", str(tmp_path / output), *more]
        assert run_main(main, argv) in (1, 2)
        return capsys.readouterr().err.strip()

    assert "--to faiss: expected --embeddings, --image-dir or --texts" in error()
    assert "--tower: does not go with --to faiss" in error("--tower", "image")
    assert "--side: does not go with --to onnx" in error("--side", "key", to="onnx")
    assert "--modality: goes with --embeddings" in error("--image-dir", str(photos), "--modality", "image")
    assert "--tower: got text; hyper-models loads image towers" in error("--tower", "text", to="hyper-models")
    assert "is a folder that holds something; expected a new or an empty folder" in error(
        "--image-dir", str(photos), output=str(photos)
    )
    images = ["--image-dir", str(photos), "--num-workers", "0"]
    assert "image to text: this model's score, an angle or a maximum" in error(*images)
    with pytest.raises(SystemExit):
        error("--tower", "images", to="onnx")
    assert "invalid choice: 'images'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_an_exported_pair_is_evaluated_as_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from hypvl.cli.evaluate import main as evaluate
    from hypvl.cli.make_demo_data import main as make_data

    assert (
        run_main(make_data, ["--output-dir", str(tmp_path / "demo"), "--num-train", "12", "--num-test", "40"])
        == 0
    )
    for kind in ("meru", "atmg"):
        model = model_flags(tmp_path, kind)
        assert run_main(main, ["--to", "onnx", *model, "--output", str(tmp_path / f"{kind}_onnx")]) == 0
        metrics = []
        for i, which in enumerate(
            (model, ["--model", f"onnx:{tmp_path / f'{kind}_onnx'}", "--device", "cpu"])
        ):
            suite = [
                "--config",
                str(ROOT / "configs/eval_demo.py"),
                "--output-dir",
                str(tmp_path / f"{kind}_{i}"),
            ]
            suite += [f"roots.demo={tmp_path / 'demo'}", "encoding.num_workers=0"]
            assert run_main(evaluate, [*suite, *which]) == 0
            results = json.loads((tmp_path / f"{kind}_{i}" / "results.json").read_text())["results"]
            metrics.append(
                {
                    (name, key): value
                    for name, own in results.items()
                    for key, value in own["metrics"].items()
                    if key != "after_centroid_cosine"  # of centroids that were taken off: noise
                }
            )
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-3, abs=1e-3, nan_ok=True)


def test_a_view_of_a_table_and_of_a_folder(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    model = [*model_flags(tmp_path, "meru"), "--num-workers", "0"]
    table = photos.parent / "pairs.csv"
    lines = [
        f"{path.relative_to(photos.parent)},a {path.parent.name} one,{path.parent.name}"
        for path in sorted(photos.rglob("*.png"))
    ]
    table.write_text("\n".join(["filepath,title,class", *lines]))
    pairs = [
        "--data",
        str(table),
        "--label-column",
        "class",
        "--neighbours",
        "1",
        "--output",
        str(tmp_path / "atlas"),
    ]
    assert run_main(main, ["--to", "atlas", *model, *pairs]) == 0
    out = capsys.readouterr().out
    assert (
        "6 rows, Poincare disk, which keeps " in out
        and f"embedding-atlas {tmp_path / 'atlas' / 'atlas.parquet'}" in out
    )
    rows = parquet.read_table(tmp_path / "atlas" / "atlas.parquet").to_pylist()
    assert [row["label"] for row in rows] == ["cold", "cold", "warm"] * 2
    assert rows[5]["caption"] == "a warm one" and len(rows[0]["neighbors"]["ids"]) == 1

    images = ["--image-dir", str(photos), "--output", str(tmp_path / "fiftyone")]
    assert run_main(main, ["--to", "fiftyone", *model, *images]) == 0
    shown = json.loads((tmp_path / "fiftyone" / "rows.json").read_text())
    assert [row["label"] for row in shown] == ["cold", "cold", "warm"] and shown[0]["caption"] is None
    assert capsys.readouterr().out.splitlines()[-1] == f"next: python {tmp_path / 'fiftyone' / 'show.py'}"

    assert run_main(main, ["--to", "atlas", *model, "--output", str(tmp_path / "none")]) == 2
    assert "expected one of --data and --image-dir" in capsys.readouterr().err
    wrong = ["--data", str(table), "--label-column", "kind", "--output", str(tmp_path / "none")]
    assert run_main(main, ["--to", "atlas", *model, *wrong]) == 1
    assert "has no 'kind'; expected one of its columns, filepath, title, class" in capsys.readouterr().err


@pytest.mark.slow  # as export/test_onnx.py::test_hyper_models_loads_the_image_tower
def test_the_printed_line_loads_the_image_tower_in_hyper_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    hyper_models = pytest.importorskip("hyper_models")
    importlib.import_module("hyper_models.preprocessing")
    model = model_flags(tmp_path, "meru")
    assert run_main(main, ["--to", "hyper-models", *model, "--output", str(tmp_path / "out")]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    loaded = eval(line, {"hyper_models": hyper_models, "pathlib": pathlib})
    points = loaded.encode_images([Image.new("RGB", (40, 30), BLUE), Image.new("RGB", (32, 32), RED)])
    assert points.shape == (2, 9)
    assert points[:, 0] ** 2 - (points[:, 1:] ** 2).sum(1) == pytest.approx(1, rel=1e-4)  # c = 1
    notes = json.loads((tmp_path / "out" / "model.json").read_text())
    assert notes["checkpoint"].endswith("meru.pth") and notes["iteration"] == 7
