"""Views as files of Embedding Atlas, HyperView and FiftyOne."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hypvl.checks import one_of
from hypvl.embedding.extract import require_pyarrow
from hypvl.errors import UserError
from hypvl.export.view import View
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes

VIEWERS = ("atlas", "hyperview", "fiftyone")
ABOUT = "about.json"

_HYPERVIEW = '''"""Open these embeddings in HyperView (pip install hyperview); with --check, open no window."""
import hyperview as hv, json, numpy as np, pathlib, sys

here, check = pathlib.Path(__file__).resolve().parent, "--check" in sys.argv
rows, space = (json.loads((here / name).read_text("utf-8")) for name in ("rows.json", "space.json"))
ids, places = [row["id"] for row in rows], [[row["x"], row["y"]] for row in rows]
fields = [{"label": row["label"], "text": row["caption"], "metadata": row["metadata"]} for row in rows]
dataset = hv.Dataset(here.name, persist=not check)
dataset.add_samples(hv.Sample(id=r["id"], filepath=str(here / r["image"]), **f) for r, f in zip(rows, fields))
dataset.register_embeddings("hypvl", "hypvl", ids, np.load(here / "vectors.npy"), config=space["config"])
dataset.set_coords(space["layout"], ids, places)
check or hv.launch(dataset)
'''
_FIFTYONE = '''"""Open these embeddings in FiftyOne (pip install fiftyone); with --check, open no window."""
import fiftyone as fo, fiftyone.brain as fob, json, numpy as np, pathlib, sys

here, check = pathlib.Path(__file__).resolve().parent, "--check" in sys.argv
rows = json.loads((here / "rows.json").read_text("utf-8"))
dataset = fo.Dataset(here.name, overwrite=True)
for row, vector in zip(rows, np.load(here / "vectors.npy")):
    row["metadata"] |= {"row_id": row["id"], "caption": row["caption"], "embedding": vector}
    label = row["label"] and fo.Classification(label=row["label"])
    dataset.add_sample(fo.Sample(filepath=str(here / row["image"]), label=label, **row["metadata"]))
ids = dataset.values("id")
dataset.set_values("neighbours", [[ids[i] for i in row["neighbours"]] for row in rows])  # nearest first
dataset.set_values("distances", [row["distances"] for row in rows])  # the model's own
fob.compute_visualization(dataset, points=np.array([[row["x"], row["y"]] for row in rows]), brain_key="hypvl")
check or fo.launch_app(dataset).wait()
'''


def write_viewer(view: View, folder: Path, *, viewer: str) -> list[Path]:
    """Write a view for one of :data:`VIEWERS` into a folder that is there; the files.

    Raises:
        UserError: when a package that writes it is missing, or the viewer has no place for the geometry.
        DataError: when the folder cannot be written to.
    """
    one_of("viewer", viewer, VIEWERS)
    write = {"atlas": write_atlas, "hyperview": write_hyperview, "fiftyone": write_fiftyone}[viewer]
    return write(view, folder)


def write_atlas(view: View, folder: Path) -> list[Path]:
    """``atlas.parquet`` for Embedding Atlas, one row each for images and captions, and ``about.json``.

    Columns: ``id``, ``modality``, ``caption``, ``label``, ``image`` (bytes and path; that of the image also for its
    caption), ``x``, ``y``, ``radius``, ``neighbors`` (ids: rows, from 0; distances), ``vector`` (the embedding).

    Raises:
        UserError: when pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    names = [_text(name) for name in view.image_names]
    flat = pa.array(view.embeddings.float().cpu().contiguous().numpy().reshape(-1))
    columns = {
        "id": pa.array([_text(row.id) for row in view.rows]),
        "modality": pa.array([row.modality for row in view.rows]),
        "caption": pa.array([row.caption or None for row in view.rows], pa.string()),
        "label": pa.array([row.label or None for row in view.rows], pa.string()),
        "image": pa.array(
            [{"bytes": view.images[row.image], "path": names[row.image]} for row in view.rows],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "x": pa.array([row.x for row in view.rows]),
        "y": pa.array([row.y for row in view.rows]),
        "radius": pa.array([row.radius for row in view.rows], pa.float64()),
        "neighbors": pa.array(
            [{"ids": row.neighbours, "distances": row.distances} for row in view.rows],
            pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))]),
        ),
        "vector": pa.FixedSizeListArray.from_arrays(flat, view.embeddings.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"hypvl": json.dumps(view.about)})
    path = folder / "atlas.parquet"
    write_output(path, lambda file: parquet.write_table(table, file))
    return [path, _write_about(view, folder)]


def write_hyperview(view: View, folder: Path) -> list[Path]:
    """``images/``, ``rows.json``, ``vectors.npy`` (of a hyperboloid time first), ``space.json`` and ``show.py``.

    Raises:
        UserError: for a product of hyperbolic spaces, which HyperView has no distance for.
    """
    curvature = view.about["curvature"]
    config: dict[str, Any]
    if curvature is not None and len(curvature) != 1:
        raise UserError(
            f"hyperview: has no distance for a product of {len(curvature)} hyperbolic spaces; write --to atlas, whose "
            "neighbours are the model's own."
        )
    if view.points is None:
        vectors, config, layout = view.embeddings, {"geometry": "euclidean"}, "euclidean"
    else:
        vectors, layout = view.points, "poincare"
        config = {"geometry": "hyperboloid", "params": {"curvature": -curvature[0]}}
    space = {"config": {"provider": "hypvl", **config}, "layout": layout}
    write_output(folder / "space.json", json_bytes(space, indent=1))
    return [*_write_rows(view, folder, vectors.float().numpy(), _HYPERVIEW), folder / "space.json"]


def write_fiftyone(view: View, folder: Path) -> list[Path]:
    """``images/``, ``rows.json``, ``vectors.npy`` (embeddings) and ``show.py``, which reads them into FiftyOne."""
    return _write_rows(view, folder, view.embeddings.float().cpu().numpy(), _FIFTYONE)


def _write_rows(view: View, folder: Path, vectors: np.ndarray, script: str) -> list[Path]:
    places = [f"images/{i:06}.jpg" for i in range(len(view.images))]
    for place, content in zip(places, view.images, strict=True):
        write_output(folder / place, content)
    rows: list[dict[str, Any]] = [
        {
            "id": row.id,
            "image": places[row.image],
            "caption": row.caption or None,
            "label": row.label or None,
            "x": row.x,
            "y": row.y,
            "neighbours": row.neighbours,
            "distances": row.distances,
            "metadata": {"modality": row.modality, "radius": row.radius},
        }
        for row in view.rows
    ]
    write_output(folder / "rows.json", json_bytes(rows))
    write_output(folder / "vectors.npy", lambda file: np.save(file, vectors))
    write_output(folder / "show.py", script)
    return [folder / "rows.json", folder / "vectors.npy", folder / "show.py", _write_about(view, folder)]


def _write_about(view: View, folder: Path) -> Path:
    write_output(folder / ABOUT, json_bytes(view.about, indent=1))
    return folder / ABOUT


def _text(name: str) -> str:
    """Names of files may not be Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()
