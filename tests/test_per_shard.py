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


def test_the_others_are_importable_by_name() -> None:
    assert hypvl.grit_shard.__module__ == "hypvl.data.grit.prepare"
    assert pickle.loads(pickle.dumps(hypvl.negatives_shard)) is hypvl.negatives_shard
