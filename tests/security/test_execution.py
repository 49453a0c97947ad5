"""No file is executed: payloads that leave a mark, under every name that a reader takes, through the readers."""

import contextlib
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.data.mappers import GenericMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.stream import Reader, WebDatasetStream
from hypvl.data.table import ImageTextTable
from hypvl.datasets.classification.original_files import _unpickle
from hypvl.datasets.classification.webdataset import SampleGroups
from hypvl.datasets.images import TarMembers
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import DataError, UserError
from hypvl.evaluation import mean_removal
from hypvl.evaluation.results import _read_results
from hypvl.io.json_text import read_object
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.hub import create_model, from_pretrained
from hypvl.negatives.convert import read_npy_items
from hypvl.training.checkpoints.files import newest_good
from hypvl.training.teacher_cache import StoredFeatures
from tests.data.helpers import Letters, jpeg, write_tar
from tests.embedding.test_store import open_store, pil_images, run
from tests.evaluation.modules import FakeModule
from tests.security.payloads import Touch, every_payload, npy

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".npy", ".npz", ".json", ".pkl")
KINDS = [kind for kind, _ in every_payload(Path("x"))]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def payload(kind: str, mark: Path) -> bytes:
    return dict(every_payload(mark))[kind]


def test_the_payloads_do_run_where_pickles_are_trusted(mark: Path) -> None:
    """What is proved below would not be, if these were harmless."""
    for kind, content in every_payload(mark):
        mark.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            if kind.startswith(("pickle", "joblib")):
                pickle.loads(content)
            elif kind.startswith(("torch", "optimizer")):
                torch.load(io.BytesIO(content), weights_only=False)
            elif kind == "npy":
                np.load(io.BytesIO(content), allow_pickle=True)
            elif kind == "npz":
                np.load(io.BytesIO(content), allow_pickle=True)["a"]
            else:
                continue
        assert mark.exists() or kind in ("TorchScript", "gzip"), kind
        mark.unlink(missing_ok=True)


READERS: dict[str, Callable[[Path], Any]] = {
    "load_checkpoint": load_checkpoint,
    "create_model": lambda path: create_model("clip_vit_s", path),
    "from_pretrained": from_pretrained,
    "means": mean_removal.load,
    "hard negatives": read_npy_items,
    "CIFAR": _unpickle,
    "results": _read_results,
    "JSON": lambda path: read_object(path, expected="an object"),
}


@pytest.mark.parametrize("reader", ["load_checkpoint", "means", "hard negatives", "CIFAR", "results", "JSON"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_not_executed(reader: str, kind: str, tmp_path: Path, mark: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"file{suffix}"
        path.write_bytes(payload(kind, mark))
        with contextlib.suppress(UserError):
            READERS[reader](path)
        assert not mark.exists(), suffix


@pytest.mark.parametrize(
    ("reader", "names"),
    [
        ("create_model", ["weights.pth"]),
        ("from_pretrained", ["weights.pth", "w.safetensors", "model.safetensors"]),
    ],
)
@pytest.mark.parametrize("kind", ["torch zip", "TorchScript"])
def test_weights_are_not_executed(
    reader: str, names: list[str], kind: str, tmp_path: Path, mark: Path
) -> None:
    for name in names:
        path = tmp_path / name
        path.write_bytes(payload(kind, mark))
        with pytest.raises(UserError):
            READERS[reader](path)
        assert not mark.exists()


def test_a_run_is_not_resumed_from_a_payload(tmp_path: Path, mark: Path) -> None:
    for kind in ("optimizer zip", "optimizer legacy", "TorchScript", "pickle 2"):
        (tmp_path / "checkpoint_00000003.pth").write_bytes(payload(kind, mark))
        (tmp_path / "last_checkpoint.txt").write_text("checkpoint_00000003.pth\n")
        with contextlib.suppress(UserError):
            newest = newest_good(tmp_path)
            if newest is not None:
                load_checkpoint(newest)
        assert not mark.exists(), kind


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with images; the stored features of a teacher are one as well."""
    folder = tmp_path_factory.mktemp("stores")
    model = FakeModule()
    run(model, pil_images(folder / "set"), open_store(folder / "store", model))
    assert len(EmbeddingStore(folder / "store").embeddings_of("image")[0]) == 5
    return folder / "store"


@pytest.mark.parametrize("kind", KINDS)
def test_stores_and_caches_are_not_executed(kind: str, store: Path, tmp_path: Path, mark: Path) -> None:
    files = [path.relative_to(store) for path in store.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".safetensors"}
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(store, folder)
        (folder / name).write_bytes(payload(kind, mark))
        for read in (lambda folder: EmbeddingStore(folder).embeddings_of("image"), StoredFeatures):
            with contextlib.suppress(UserError):
                read(folder)
            assert not mark.exists(), name


def crop(image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return image


def test_members_and_indexes_of_shards_are_not_executed(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = [("0.jpg", jpeg(0)), ("0.txt", b"x")]
    for i, (_, content) in enumerate(every_payload(mark), start=1):
        members += [
            (f"{i}.{e}", content) for e in ("jpg", "txt", "json", "npy", "pyd", "pkl", "pickle", "pth", "cls")
        ]
    path = write_tar(tmp_path / "0.tar", members, tarfile.USTAR_FORMAT)
    (tmp_path / "0.tar.hypvl-index").write_bytes(npy(mark))
    shards = ImageTextShards([str(path)], GenericMapper(), crop, Letters(), max_bad_fraction=1.0)
    for row in range(len(shards)):
        with contextlib.suppress(Exception):
            shards.sample(row, np.random.default_rng(0))
    stream = WebDatasetStream(
        [str(path)],
        GenericMapper(),
        crop,
        Letters(),
        samples_per_epoch=9,
        shuffle_window=1,
        max_bad_fraction=1.0,
    )
    for item, _ in zip(stream.read_stream(0, Reader(0, 1), 0), range(len(members)), strict=False):
        assert item.bad is not None or item.sample is not None
    groups = SampleGroups(column=0, names=["a"])
    tar = TarMembers([path])
    for i in range(len(tar)):
        with contextlib.suppress(DataError, KeyError):
            groups.read(tar, i)
    assert not mark.exists()


def test_tables_of_payloads_are_not_executed(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "i.jpg").write_bytes(pickle.dumps(Touch(mark)))
    for kind, content in every_payload(mark):
        for suffix in (".csv", ".tsv", ".jsonl", ".json"):
            path = tmp_path / f"table{suffix}"
            path.write_bytes(content)
            with contextlib.suppress(UserError):
                len(ImageTextTable(path, image_transform=crop, tokenizer=Letters()))
            assert not mark.exists(), kind
