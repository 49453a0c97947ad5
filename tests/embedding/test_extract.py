"""Shards of images and texts become shards of embeddings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.data.shards import shard_names
from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.datasets.user_inputs import Texts
from hypvl.embedding.encode import Encoding
from hypvl.embedding.extract import Extracted, ShardEncoder, extract
from hypvl.embedding.identity import model_identity
from hypvl.embedding.input_shards import InputShard
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import CheckpointError, DataError, UserError
from tests.datasets.test_user_inputs import tar
from tests.embedding.encoders import encode_images
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeTokenizer, broken, image
from tests.evaluation.modules import FakeModule

ENCODING = Encoding(batch_size=2, num_workers=0, max_bad_fraction=0.5)


def encoder(model: Any, **more: Any) -> ShardEncoder:
    identity = model_identity(model)
    assert identity is not None
    return ShardEncoder(lambda: model, identity, ENCODING, Squeeze(8), FakeTokenizer(), **more)


def go(model: Any, shards: list[InputShard], folder: Path, **more: Any) -> list[Extracted]:
    return list(extract(encoder(model, **more), shards, folder))


def test_tars_become_a_store_that_evaluation_reads(tmp_path: Path) -> None:
    model = FakeModule()
    places = [
        str(tar(tmp_path / "0.tar", a=RED, b=GREEN)),
        str(tar(tmp_path / "1.tar", a=BLUE, b=None, c=RED)),  # b is not an image
    ]
    shards = [InputShard(Path(p).stem, [p], images=lambda p=p: Images.from_tars([p])) for p in places]  # type: ignore[misc]
    assert go(model, shards, tmp_path / "out") == [
        Extracted("0", rows=2),
        Extracted("1", rows=2, unreadable=1),
    ]
    group = EmbeddingStore(tmp_path / "out").groups()[0]
    assert sorted(path.name for path in group.folder.glob("*.safetensors")) == [
        "0.safetensors",
        "1.safetensors",
    ]
    ids, rows = group.all_rows()
    assert ids == [f"{places[0]}::a", f"{places[0]}::b", f"{places[1]}::a", f"{places[1]}::c"]
    assert rows.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    counts = model.counts
    store = EmbeddingStore(tmp_path / "out", model=model_identity(model), roots={"eval": tmp_path})
    encoded = encode_images(
        model,
        Images.from_tars(places),
        store=store,
        encoding=Encoding(num_workers=0, max_bad_fraction=0.5),
    )
    assert model.counts == counts and torch.equal(encoded.embeddings, rows)
    assert encoded.indices.tolist() == [0, 1, 2, 4] and len(encoded.bad) == 1


def test_existing_shards_stay_and_changed_ones_are_encoded_again(tmp_path: Path) -> None:
    model = FakeModule()
    paths = [image(tmp_path / f"{i}.png", color) for i, color in enumerate((RED, GREEN))]
    shards = [
        InputShard(f"{i}", [str(p)], images=lambda p=p: Images.from_files([p])) for i, p in enumerate(paths)
    ]  # type: ignore[misc]
    assert [shard.rows for shard in go(model, shards, tmp_path / "out")] == [1, 1]
    assert [shard.existed for shard in go(model, shards, tmp_path / "out")] == [True, True]
    assert model.counts == (2, 0)
    image(paths[1], BLUE, size=(20, 20))
    assert [shard.existed for shard in go(model, shards, tmp_path / "out")] == [True, False]
    assert EmbeddingStore(tmp_path / "out").groups()[0].all_rows()[1].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_failed_shard_leaves_no_files_and_the_others_are_encoded(tmp_path: Path) -> None:
    model = FakeModule()
    bad = [broken(tmp_path / f"{i}.jpg") for i in range(2)]
    good = image(tmp_path / "good.png", RED)
    shards = [
        InputShard("bad", [str(p) for p in bad], images=lambda: Images.from_files(bad)),
        InputShard("good", [str(good)], images=lambda: Images.from_files([good])),
    ]
    first, second = go(model, shards, tmp_path / "out")
    assert "2 of 2 images cannot be read" in first.error and second == Extracted("good", rows=1)
    assert [path.stem for path in (tmp_path / "out").glob("*/*.safetensors")] == ["good"]
    with torch.no_grad():
        model.table.fill_(torch.nan)
    (diverged,) = go(model, [InputShard("t", [], texts=lambda: Texts(["red"], ["1"]))], tmp_path / "nan")
    assert "NaN or infinity" in diverged.error and not list((tmp_path / "nan").glob("*/*.safetensors"))


def test_every_text_has_a_row_under_its_id(tmp_path: Path) -> None:
    texts = Texts(["red", "blue", "red"], ["7", "8", "9"])
    shard = InputShard("captions", [], texts=lambda: texts)
    assert go(FakeModule(), [shard], tmp_path / "out", stage="features") == [Extracted("captions", rows=3)]
    group = EmbeddingStore(tmp_path / "out").groups()[0]
    assert group.meta == {"modality": "text", "stage": "features", "transform": "", "amp": ""}
    ids, rows = group.all_rows()
    assert ids == ["7", "8", "9"] and rows.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_names_of_shards() -> None:
    assert shard_names(["a/0.tar", "a/1.tar.gz"]) == ["0", "1.tar"]
    assert shard_names(["a/0.tar", "b/0.tar"]) == ["a--0", "b--0"]
    assert shard_names(["https://host/a/0.tar?x=1", "c/0.tar"]) == ["a--0", "c--0"]
    with pytest.raises(DataError, match=r"a/0\.tar: is given twice"):
        shard_names(["a/0.tar", "b/1.tar", "a/0.tar"])


def test_a_store_of_another_model_is_refused(tmp_path: Path) -> None:
    shard = InputShard("t", [], texts=lambda: Texts(["red"], ["1"]))
    go(FakeModule(), [shard], tmp_path)
    with pytest.raises(CheckpointError, match="holds embeddings of another model"):
        go(FakeModule(gain=2.0), [shard], tmp_path)


def test_a_model_that_changes_during_the_run_makes_no_shard(tmp_path: Path) -> None:
    model = FakeModule()
    changed = encoder(model)
    model.gain = 2.0
    (result,) = extract(changed, [InputShard("t", [], texts=lambda: Texts(["red"], ["1"]))], tmp_path)
    assert "the model has changed since this command started" in result.error


def test_other_keys_and_thumbnails_are_refused(tmp_path: Path) -> None:
    def shard(key: str) -> InputShard:
        return InputShard("t", [], texts=lambda: Texts(["red"], ["1"]), settings={"text_key": key})

    assert [one.rows for one in go(FakeModule(), [shard("caption")], tmp_path)] == [1]
    (other,) = go(FakeModule(), [shard("title")], tmp_path)
    assert "was made with other settings (text_key was caption, now it is title)" in other.error
    with pytest.raises(DataError, match=r"other settings \(thumbnails was 0, now it is 16\)"):
        go(FakeModule(), [shard("caption")], tmp_path, thumbnails=16)


def test_shards_of_a_version_without_manifests_stay(tmp_path: Path) -> None:
    model = FakeModule()
    path = str(image(tmp_path / "0.png", RED))
    shards = [InputShard("0", [path], images=lambda: Images.from_files([Path(path)]))]
    go(model, shards, tmp_path / "out")
    (group,) = EmbeddingStore(tmp_path / "out").groups()
    shutil.rmtree(group.folder / "units")
    assert go(model, shards, tmp_path / "out") == [Extracted("0", rows=1, existed=True)]
    image(tmp_path / "0.png", BLUE, size=(20, 20))
    (changed,) = go(model, shards, tmp_path / "out")
    assert "0.safetensors: is in the way" in changed.error


def test_parquet_holds_ids_and_embeddings(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    shard = InputShard("captions", [], texts=lambda: Texts(["red", "blue"], ["7", "8"]))
    for kept in (False, True):
        (done,) = go(FakeModule(), [shard], tmp_path / "out", fmt="parquet")
        assert done.existed == kept and not done.error
    table = parquet.read_table(next((tmp_path / "out").glob("*/captions.parquet")))
    assert table.to_pydict() == {"id": ["7", "8"], "embedding": [[1, 0, 0], [0, 0, 1]]}
    assert json.loads(table.schema.metadata[b"hypvl"])["modality"] == "text"
    assert not list((tmp_path / "out").glob("*/*.safetensors"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'hypvl\[parquet\]'"):
        go(FakeModule(), [], tmp_path, fmt="parquet")
