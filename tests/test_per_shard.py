"""The functions for other engines give the shards of the commands, and can be sent to other processes."""

import functools
import pickle
import shutil
from pathlib import Path

import pytest

import hypvl
from hypvl.cli.common import run_main
from hypvl.cli.extract_embeddings import main
from hypvl.embedding.store import EmbeddingStore
from hypvl.errors import CheckpointError, DataError
from tests.cli.test_image_traversals import checkpoint
from tests.data.raw_grit import write_shard
from tests.datasets.test_user_inputs import tar
from tests.evaluation.fakes import BLUE, GREEN, RED
from tests.units.test_unit import contents


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"), "meru")


def test_encoded_shards_are_those_of_the_command(weights: Path, tmp_path: Path) -> None:
    shards = [str(tar(tmp_path / "0.tar", a=RED, b=GREEN)), str(tar(tmp_path / "1.tar", a=BLUE))]
    encode = functools.partial(
        hypvl.encode_shard, output_dir=tmp_path / "calls", model=str(weights), device="cpu"
    )
    encode = pickle.loads(pickle.dumps(encode))
    assert [encode(shard).rows for shard in reversed(shards)] == [1, 2]
    assert encode(shards[0]).existed
    flags = [
        "--checkpoint-path",
        str(weights),
        "--device",
        "cpu",
        "--num-workers",
        "0",
        "--shards",
        *shards[:1],
    ]
    flags[-1] = f"{tmp_path}/?.tar"
    assert run_main(main, [*flags, "--output-dir", str(tmp_path / "command")]) == 0
    assert contents(tmp_path / "calls") == contents(tmp_path / "command")
    (group,) = EmbeddingStore(tmp_path / "calls").groups()
    assert group.all_rows()[0] == [f"{shards[0]}::a", f"{shards[0]}::b", f"{shards[1]}::a"]


def test_texts_of_tables_and_tars_are_encoded(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,title\n1.jpg,a dog\n2.jpg,a cat\n")
    encode = functools.partial(hypvl.encode_shard, output_dir=tmp_path / "out", model=weights, device="cpu")
    assert encode(tmp_path / "captions.csv", text_key="title").rows == 2
    assert encode(tar(tmp_path / "0.tar", a=RED), text_key="json.caption", stage="features").rows == 1
    modalities = {group.meta["modality"] for group in EmbeddingStore(tmp_path / "out").groups()}
    assert modalities == {"text"}


def test_what_cannot_be_encoded_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    encode = functools.partial(hypvl.encode_shard, output_dir=tmp_path / "out", device="cpu")
    with pytest.raises(DataError, match=r"none\.tar: cannot be read \(No such file"):
        encode(tmp_path / "none.tar", model=weights)
    shard = tar(tmp_path / "0.tar", a=RED)
    encode(shard, model=weights)
    other = checkpoint(tmp_path, "clip")
    with pytest.raises(CheckpointError, match="holds embeddings of another model"):
        encode(shard, model=other)
    shutil.rmtree(tmp_path / "out")
    assert encode(shard, model=other).rows == 1


NO_PATHS = {
    "none": (None, "got None"),
    "no name": ("", "got ''"),
    "a number": (3, "got 3"),
    "a list": (["0.tar"], "got a list"),
    "a generator": ((name for name in ["0.tar"]), "got a generator"),
}


@pytest.mark.parametrize("name", NO_PATHS)
def test_what_is_no_path_is_one_sentence(name: str, tmp_path: Path) -> None:
    value, came = NO_PATHS[name]
    for function, argument in (
        (functools.partial(hypvl.encode_shard, model="m"), "shard"),
        (hypvl.grit_shard, "shard"),
        (hypvl.negatives_shard, "captions"),
    ):
        with pytest.raises(ValueError, match=f"{argument}: {came}; expected one path, a str or Path"):
            function(value, tmp_path / "out")
        with pytest.raises(ValueError, match=f"output_dir: {came}; expected"):
            function("0.tar", value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_named_and_not_given(weights: Path, tmp_path: Path) -> None:
    model = hypvl.create_model(weights)
    for value, came in ((model, "a DualEncoder"), (None, "None")):
        with pytest.raises(ValueError, match=f"model: got {came}; expected one path"):
            hypvl.encode_shard(tmp_path / "0.tar", tmp_path / "out", model=value)  # type: ignore[arg-type]


def test_odd_shards_are_one_sentence_and_leave_nothing(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    encode = functools.partial(hypvl.encode_shard, output_dir=out, model=weights, device="cpu")
    texts = write_shard(tmp_path / "texts.tar", [{"txt": b"a dog"}, {"txt": b"a cat"}])
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "image.tar").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(90))
    for path, message in (
        (texts, "2 of 2 images cannot be read.*has no image; it has txt"),
        (write_shard(tmp_path / "zero.tar", []), "holds no images"),
        (tmp_path / "empty.tar", r"empty\.tar: cut off at byte 0"),
        (tmp_path / "image.tar", r"image\.tar: cut off at byte 98, inside a header"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            encode(path)
    assert not [*out.rglob("*.safetensors"), *out.rglob("*.parquet")]
    assert encode(texts, text_key="txt").rows == 2 and encode(texts, text_key="txt").existed


def test_grit_shards_have_the_check_of_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    texts = write_shard(tmp_path / "texts.tar", [{"txt": b"a dog"}, {"txt": b"a cat"}])
    (tmp_path / "image.tar").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(90))
    for _ in range(2):  # also when it is there already
        with pytest.raises(
            DataError, match=r"2 of 2 samples \(100\.0%\) could not be used .*more than max_bad_fr"
        ):
            hypvl.grit_shard(texts, out)
    assert hypvl.grit_shard(texts, out, max_bad_fraction=1).status == "existed"
    with pytest.raises(
        ValueError, match="max_bad_fraction: got 7; expected a number of at least 0 and up to 1"
    ):
        hypvl.grit_shard(texts, out, max_bad_fraction=7)
    with pytest.raises(DataError, match=r"image\.tar: nothing of it can be read \(cut off at byte 98"):
        hypvl.grit_shard(tmp_path / "image.tar", out, max_bad_fraction=1)
    with pytest.raises(DataError, match=r"\*\.tar: names 2 TAR files; expected one"):
        hypvl.grit_shard(tmp_path / "*.tar", out)
    assert [path.name for path in out.glob("*.tar")] == ["texts.tar"]


def test_the_others_are_importable_by_name() -> None:
    assert hypvl.grit_shard.__module__ == "hypvl.data.grit.prepare"
    assert pickle.loads(pickle.dumps(hypvl.negatives_shard)) is hypvl.negatives_shard
