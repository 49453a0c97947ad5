"""Embeddings in a folder, and encoding that takes them from there."""

import io
import json
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.images import Images
from hypvl.embedding.encode import EncodedImages, Encoding
from hypvl.embedding.identity import model_identity
from hypvl.embedding.store import EmbeddingStore, Place
from hypvl.embedding.store_files import NO_STAMP, Entry, stamp, text_digest
from hypvl.errors import CheckpointError, DataError
from hypvl.evaluation.mean_removal import MeanRecorder
from hypvl.evaluation.protocol import EvaluationContext
from hypvl.evaluation.zero_shot import ZeroShotClassification
from tests.embedding.encoders import encode_images, encode_texts
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeTokenizer, broken, image as pil_image
from tests.evaluation.modules import FakeModule
from tests.ranks import run_ranks

COLORS = (RED, GREEN, BLUE, RED, GREEN)


def open_store(folder: Path, model: FakeModule, mode: str = "write", **more: Any) -> EmbeddingStore:
    return EmbeddingStore(folder, model=model_identity(model), mode=mode, **more)  # type: ignore[arg-type]


def encoding(**more: Any) -> Encoding:
    return Encoding(**{"batch_size": 2, "num_workers": 0, "max_bad_fraction": 0.5} | more)


def files_of(images: Images) -> list[Path]:
    return [Path(place) for place in images.ids or ()]


def pil_images(folder: Path) -> Images:
    return Images.from_files([pil_image(folder / f"{i}.png", color) for i, color in enumerate(COLORS)])


def run(
    model: Any, images: Any, store: EmbeddingStore | None, transform: Any = None, **more: Any
) -> EncodedImages:
    return encode_images(model, images, transform=transform, store=store, encoding=encoding(**more))


def test_stored_images_need_not_exist_any_more(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    expected = run(model, images, None)
    first = run(model, images, open_store(tmp_path / "store", model))
    assert torch.equal(first.embeddings, expected.embeddings)
    assert model.counts == (10, 0)
    for path in files_of(images):
        path.unlink()
    store = open_store(tmp_path / "store", model, "read")
    again = run(model, images, store)
    assert model.counts == (10, 0)  # nothing new
    assert torch.equal(again.embeddings, expected.embeddings)
    assert again.indices.tolist() == [0, 1, 2, 3, 4] and again.bad == []
    assert (store.reused, store.encoded) == (5, 0)


def test_stored_rows_and_new_rows_are_joined_in_order(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    run(model, images.take([3, 1]), open_store(tmp_path / "store", model))
    half = EmbeddingStore(tmp_path / "store", model=model_identity(model))
    result = run(model, images, half)
    assert torch.equal(result.embeddings, run(model, images, None).embeddings)
    # 1 and 3 by their ids; 4 looks like 1 to the model, and 0 like 3.
    assert (half.reused, half.encoded) == (4, 1)
    assert len(list((tmp_path / "store").glob("*/*.safetensors"))) == 1  # reading adds nothing


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    run(model, images, open_store(tmp_path / "store", model))
    before = files_of(images)[0].stat()
    pil_image(files_of(images)[0], BLUE)
    os.utime(files_of(images)[0], ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    result = run(model, images, open_store(tmp_path / "store", model))
    assert result.embeddings[0].tolist() == [0.0, 0.0, 1.0]
    os.utime(files_of(images)[1], ns=(0, 0))  # another time, the same content: known by what the model sees
    counts = model.counts
    assert run(model, images, open_store(tmp_path / "store", model)).embeddings[1].tolist() == [0.0, 1.0, 0.0]
    assert model.counts == counts


def test_the_same_name_in_two_folders_is_two_images(tmp_path: Path) -> None:
    model = FakeModule()
    store = open_store(tmp_path / "store", model)
    red = Images.from_files([pil_image(tmp_path / "a" / "0.png", RED)])
    blue = Images.from_files([pil_image(tmp_path / "b" / "0.png", BLUE)])
    for _ in range(2):
        assert run(model, red, store).embeddings.tolist() == [[1.0, 0.0, 0.0]]
        assert run(model, blue, store).embeddings.tolist() == [[0.0, 0.0, 1.0]]
    assert model.counts == (2, 0)


def test_named_roots_may_move(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "here" / "set")
    store = open_store(tmp_path / "store", model, roots={"eval": tmp_path / "here", "other": tmp_path})
    run(model, images, store)
    assert store.portable(str(files_of(images)[0])) == "{eval}/set/0.png"  # the nearest root
    assert store.portable(f"{tmp_path}/x.tar::000") == "{other}/x.tar::000"
    assert EmbeddingStore(tmp_path / "store").portable("/far/x.png") == "/far/x.png"
    assert store.portable("https://host/x.tar::1") == "https://host/x.tar::1"
    elsewhere = Images.from_files([tmp_path / "there" / "set" / path.name for path in files_of(images)])
    moved = open_store(tmp_path / "store", model, "read", roots={"eval": tmp_path / "there"})
    assert len(run(model, elsewhere, moved).embeddings) == 5 and model.counts == (5, 0)


def test_unreadable_images_are_stored_until_their_files_change(tmp_path: Path) -> None:
    model = FakeModule()
    path = broken(tmp_path / "x.jpg")
    images = Images.from_files(
        [pil_image(tmp_path / "0.png", RED), path, pil_image(tmp_path / "1.png", BLUE)]
    )
    first = run(model, images, open_store(tmp_path / "store", model))

    class Unreadable(Images):
        def __getitem__(self, index: int) -> Tensor:
            raise AssertionError("read again")

    store = open_store(tmp_path / "store", model, "read")
    again = run(model, Unreadable.from_files(files_of(images)), store)
    assert again.bad == first.bad and len(first.bad) == 1 and "x.jpg" in first.bad[0][1]
    assert again.indices.tolist() == [0, 2]
    with pytest.raises(DataError, match=r"more than max_bad_fraction=0\.1"):
        run(model, images, store, max_bad_fraction=0.1)
    pil_image(path, GREEN)
    repaired = run(model, images, open_store(tmp_path / "store", model))
    assert repaired.bad == [] and repaired.embeddings[1].tolist() == [0.0, 1.0, 0.0]


def test_stage_transform_and_precision_are_kept_apart(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    for settings in ({}, {"transform": ResizeCenterCrop(8)}, {"transform": Squeeze(4)}, {"amp": "bf16"}):
        run(model, images, open_store(tmp_path / "store", model), **settings)
    groups = EmbeddingStore(tmp_path / "store").groups()
    assert {(g.meta["transform"], g.meta["amp"]) for g in groups} == {
        ("Squeeze(size=8)", ""), ("ResizeCenterCrop(size=8)", ""), ("Squeeze(size=4)", ""),
        ("Squeeze(size=8)", "bf16"),
    }  # fmt: skip
    assert model.counts == (20, 0)
    encode_images(
        model,
        images,
        store=open_store(tmp_path / "store", model),
        stage="trunk",
    )
    assert model.counts == (25, 0)


def test_without_ids_or_a_named_transform_images_are_found_by_digest(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")

    class Plain:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Tensor:
            return images[index]

    squeeze = Squeeze(8)
    transform: Callable[[Tensor], Tensor] = lambda image: squeeze(image)  # noqa: E731
    for source, how in ((Plain(), Squeeze(8)), (images, transform)):
        before = model.counts[0]
        expected = run(model, images, None)
        for _ in range(2):
            result = run(model, source, open_store(tmp_path / "store", model), how)
            assert torch.equal(result.embeddings, expected.embeddings)
        # Five without a store, then within a batch of two none twice: red green, (blue, red), (green).
        assert model.counts[0] - before <= 10
    counts = model.counts
    run(model, images, open_store(tmp_path / "store", model), transform)
    assert model.counts == counts


def test_texts_are_found_by_their_tokens(tmp_path: Path) -> None:
    model, texts = FakeModule(), ["red", "a green thing", "red", "blue", "the red"]
    store = open_store(tmp_path / "store", model)
    expected = encode_texts(model, texts)
    for taken in (0, 5):
        result = encode_texts(model, texts, store=store)
        assert torch.equal(result, expected)
        assert store.reused == taken
    assert model.counts == (0, 5 + 3)  # each once: the fake tokenizer knows colours alone
    ids, rows = store.groups()[0].all_rows()
    assert ids == ["red", "a green thing", "blue"] and rows.tolist() == expected[[0, 1, 3]].tolist()
    assert text_digest([5, 0, 7, 0, 0]) == text_digest([5, 0, 7]) != text_digest([5, 7])


def test_another_model_is_refused_and_a_changed_one_does_not_use_the_store(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    store = open_store(tmp_path / "store", model)
    run(model, images, store)
    with pytest.raises(CheckpointError, match=r"holds embeddings of another model \(identity .*this one"):
        open_store(tmp_path / "store", FakeModule(gain=2.0), "read")
    with torch.no_grad():
        model.table.add_(1.0)  # fine-tuned, say
    model.gain = 3.0
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)))
    try:
        assert run(model, images, store).embeddings[0].tolist() == [3.0, 0.0, 0.0]
    finally:
        logger.remove(sink)
    assert "not used" in said[0]


def test_wrapped_models_do_not_use_the_store(tmp_path: Path) -> None:
    model, images = FakeModule(), pil_images(tmp_path / "set")
    store = open_store(tmp_path / "store", model)
    run(model, images, store)
    counts = model.counts

    class Doubled(MeanRecorder):
        def encode_image(self, images: Tensor, stage: Any = "embeddings") -> Tensor:
            return 2 * self.model.encode_image(images, stage=stage)

    assert run(Doubled(model), images, store).embeddings[0].tolist() == [2.0, 0.0, 0.0]
    assert model.counts == (counts[0] + 5, 0)


def test_shards_of_a_killed_run_are_used_and_half_shards_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypvl.embedding.store._ROWS_PER_SHARD", 2)
    model = FakeModule()
    paths = [pil_image(tmp_path / f"{i}.png", (10 * i, 0, 0)) for i in range(7)]

    class Killed(Images):
        def __getitem__(self, index: int) -> Tensor:
            if index == 5:
                os._exit(9)
            return super().__getitem__(index)

    child = os.fork()
    if child == 0:  # ends in the third batch of two, without a goodbye
        run(model, Killed.from_files(paths), open_store(tmp_path / "store", model))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    shards = sorted((tmp_path / "store").glob("*/*.safetensors"))
    assert len(shards) == 2
    shards[0].with_suffix(".json").unlink()  # killed between the two files
    store = open_store(tmp_path / "store", model)
    result = run(model, Images.from_files(paths), store)
    assert result.embeddings[:, 0].tolist() == pytest.approx([10 * i / 255 for i in range(7)])
    assert (store.reused, store.encoded) == (2, 5)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    model = FakeModule()
    with pytest.raises(DataError, match=r"holds no embeddings \(store.json is not there\); make them"):
        EmbeddingStore(tmp_path / "none")
    with pytest.raises(ValueError, match="EmbeddingStore: got mode='write', model=None"):
        EmbeddingStore(tmp_path, mode="write")
    images = pil_images(tmp_path / "set")
    run(model, images, open_store(tmp_path / "store", model))
    shard = next((tmp_path / "store").glob("*/*.safetensors"))
    shard.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"safetensors: cannot be read .*delete it"):
        run(model, images, open_store(tmp_path / "store", model))
    shard.with_suffix(".json").write_text("{}")
    with pytest.raises(DataError, match="lacks ids, digests"):
        run(model, images, open_store(tmp_path / "store", model))
    shard.with_suffix(".json").write_text('{"ids"')
    with pytest.raises(DataError, match=r"json: cannot be read"):
        run(model, images, open_store(tmp_path / "store", model))
    (tmp_path / "store" / "store.json").write_text(json.dumps({"format_version": 9, "model": "x"}))
    with pytest.raises(DataError, match="format_version 9; expected 1"):
        open_store(tmp_path / "store", model)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"store.json: cannot be written"):
        open_store(tmp_path / "file", model)


def thumbnails(folder: Path) -> list[bytes]:
    """JPEGs of the images of all shards, in the order of the shards' names and rows."""
    images: list[bytes] = []
    for path in sorted(folder.glob("image-*/*.safetensors")):
        tensors = load_file(path)
        ends = [0, *tensors["thumbnail_ends"].tolist()]
        images += [bytes(tensors["thumbnails"][a:b].numpy()) for a, b in pairwise(ends)]
    return images


def test_thumbnails(tmp_path: Path) -> None:
    model = FakeModule()
    path = pil_image(tmp_path / "wide.png", BLUE, size=(400, 100))
    store = open_store(tmp_path / "store", model, thumbnails=64)
    run(model, Images.from_files([path, pil_image(tmp_path / "small.png", RED, size=(9, 7))]), store)
    wide, narrow = thumbnails(tmp_path / "store")
    with Image.open(io.BytesIO(wide)) as small:
        assert small.format == "JPEG" and small.size == (64, 16)
        assert small.getpixel((30, 8))[2] > 240  # type: ignore[index]
    with Image.open(io.BytesIO(narrow)) as small:
        assert small.size == (9, 7)


def test_named_shards_and_stamps(tmp_path: Path) -> None:
    model = FakeModule()
    group = open_store(tmp_path / "store", model).group("text", "features")
    group.add(Entry("one", "d1"), torch.tensor([1.0, 2.0]))
    group.add(Entry("two", "d2"), torch.tensor([3.0, 4.0]))
    group.write_shard("00000")
    assert (group.folder / "00000.safetensors").is_file()
    group.refresh()
    assert group.find_digest("d2") == Place(0, 1)
    assert group.rows([Place(0, 1), Place(0, 0), Place(0, 1)]).tolist() == [[3, 4], [1, 2], [3, 4]]
    assert stamp(str(tmp_path / "nothing")) == NO_STAMP
    path = pil_image(tmp_path / "a.png", RED)
    assert stamp(f"{path}::inside") == stamp(str(path)) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_an_evaluator_returns_the_same_with_a_store(tmp_path: Path) -> None:
    for name, color in {"red": RED, "green": GREEN, "blue": BLUE}.items():
        pil_image(tmp_path / "set" / name / "1.png", color)
    broken(tmp_path / "set" / "red" / "2.png")
    model = FakeModule()

    def evaluate(store: EmbeddingStore | None) -> Any:
        evaluator = ZeroShotClassification(
            ImageFolderSet(tmp_path / "set"), ["a {}"], encoding=encoding(), tokenizer=FakeTokenizer()
        )
        return evaluator(model, EvaluationContext(store=store))

    plain = evaluate(None)
    assert evaluate(open_store(tmp_path / "store", model)) == plain
    counts = model.counts
    assert evaluate(open_store(tmp_path / "store", model, "read")) == plain
    assert model.counts == counts


def _on_a_rank(folder: Path, mode: str | None, fails: str) -> Any:
    model, paths = FakeModule(), [folder / "set" / f"{i}.png" for i in range(5)]
    store = None if mode is None else open_store(folder / "store", model, mode)
    if fails == "memory" and torch.distributed.get_rank() == 1:
        model.encode_text = lambda *_, **__: torch.empty(1 << 60)  # type: ignore[method-assign]
    try:
        images = run(model, Images.from_files(paths), store, max_bad_fraction=0.3)
        texts = encode_texts(model, ["red", "green", "blue", "red and blue", "red"], store=store)
    except (DataError, RuntimeError) as error:
        return str(error)
    return images.embeddings, images.indices.tolist(), images.bad, texts, model.counts


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return torch.equal(a[0], b[0]) and a[1:3] == b[1:3] and torch.equal(a[3], b[3])


@pytest.mark.slow
def test_ranks_share_the_work_and_all_get_all_rows(tmp_path: Path) -> None:
    pil_images(tmp_path / "set")
    broken(tmp_path / "set" / "2.png")
    whole = _on_a_rank(tmp_path, None, "")
    zero, one = run_ranks(2, _on_a_rank, tmp_path, "write", "")
    assert _same(zero, whole) and _same(one, whole)
    # Batches 01 | 23 | 4 of images, one of them broken; of four different texts 01 | 23.
    assert (zero[4], one[4]) == ((3, 2), (1, 2))
    three = run_ranks(3, _on_a_rank, tmp_path, "read", "")
    assert all(_same(rank, whole) and rank[4] == (0, 0) for rank in three)
    without = run_ranks(3, _on_a_rank, tmp_path, None, "")
    assert all(_same(rank, whole) for rank in without)


@pytest.mark.slow
def test_an_error_on_one_rank_ends_them_all(tmp_path: Path) -> None:
    pil_images(tmp_path / "set")
    for i in (2, 3):
        broken(tmp_path / "set" / f"{i}.png")  # both are rank 1's
    zero, one = run_ranks(2, _on_a_rank, tmp_path, None, "")
    assert "2 of 5 images cannot be read" in zero and zero == one
    pil_images(tmp_path / "set")
    zero, one = run_ranks(2, _on_a_rank, tmp_path, None, "memory")
    assert "allocate" in zero and zero == one
