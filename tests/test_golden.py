"""What an earlier version wrote still loads: its checkpoints, configs and results (tests/golden/).

The files were written by hypvl 0.1.0 at commit 40152ee, before its modules and arguments were renamed: the run of
``train_uncha_demo.py`` with small encoders (checkpoint after 2 of 4 steps, the losses of all 4), its results of
``eval_demo.py``, a checkpoint of ``train_i0t_async_demo.py`` with its two batch norms, every config of configs/ as
a run saves it, and names and shapes of every demo recipe's weights. ``pretrained/`` is a tiny MERU that
``save_pretrained`` wrote at commit 93e6e5a, with the scores it had. They are never written anew.
"""

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hypvl
from hypvl.cli.evaluate import main as evaluate
from hypvl.cli.train import main as train
from hypvl.config import LazyConfig, instantiate
from hypvl.data.demo.build import DemoArguments, make_demo_data
from hypvl.evaluation import results as results_format
from hypvl.models import checkpoint_io

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress((GOLDEN / name).read_bytes()))
    return content


CONFIGS = read("configs.json.gz")
STATE_DICTS = read("state_dicts.json.gz")


# What was renamed since; files with the old names still load.
RENAMED = {"image_post.": "image_transforms.0.", "text_post.": "text_transforms.0."}


def new_name(key: str) -> str:
    for old, new in RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def unpack(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(name).name.removesuffix(".gz")
    path.write_bytes(gzip.decompress((GOLDEN / name).read_bytes()))
    return path


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the golden run, in the folder where its config expects it; the folder to run in."""
    folder = tmp_path_factory.mktemp("golden")
    arguments = DemoArguments(num_train=200, num_test=40, num_digits=100)
    make_demo_data(folder / "datasets" / "demo", arguments)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The golden run had one: angles of nearly equal texts amplify the last bit of a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*")) <= 2_000_000


def test_every_format_of_checkpoints_and_results_has_a_golden_file(tmp_path: Path) -> None:
    checkpoints = [unpack(str(path.relative_to(GOLDEN)), tmp_path) for path in GOLDEN.rglob("*.pth.gz")]
    versions = {torch.load(path, weights_only=True)["format_version"] for path in checkpoints}
    assert versions == set(range(1, checkpoint_io.FORMAT_VERSION + 1)), "write a golden run of the new format"
    results = {json.loads(path.read_bytes())["format_version"] for path in GOLDEN.rglob("results.json")}
    assert results == set(range(2, results_format.FORMAT_VERSION + 1)), (
        "write golden results of the new format"
    )


def test_a_pretrained_folder_has_the_scores_it_had() -> None:
    model = hypvl.from_pretrained(GOLDEN / "pretrained")
    images = (torch.arange(2 * 3 * 32 * 32) % 251).to(torch.uint8).reshape(2, 3, 32, 32)
    texts = torch.tensor([[1, 5, 9, 63, 0, 0, 0, 0], [1, 7, 63, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        embeddings = model.encode_image(images), model.encode_text(texts)
        scores = model.scores(*embeddings, query_modality="image", key_modality="text")
    golden = json.loads((GOLDEN / "pretrained" / "scores.json").read_bytes())
    torch.testing.assert_close(scores, torch.tensor(golden), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_saved_config_loads_as_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(CONFIGS[name], encoding="utf-8")

    old, new = LazyConfig.load(path), LazyConfig.load(ROOT / "configs" / f"{name}.py")

    assert set(old) <= set(new)  # a later version may add settings


@pytest.mark.parametrize("name", sorted(STATE_DICTS))
def test_weights_keep_their_names_and_shapes(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(CONFIGS[name], encoding="utf-8")
    config = LazyConfig.load(path)
    golden = STATE_DICTS[name]

    model, objective = instantiate(config.model), instantiate(config.train.objective)

    for part, module in (("model", model), ("objective", objective)):
        shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
        assert shapes == {new_name(key): shape for key, shape in golden[part].items()}, part
    assert [key for key, _ in model.named_parameters()] == [new_name(key) for key in golden["parameters"]]


@pytest.mark.usefixtures("one_thread")
def test_a_run_resumes_with_the_losses_it_had(
    demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_data)
    unpack("uncha/checkpoint_00000002.pth.gz", tmp_path)
    lines = (GOLDEN / "uncha" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for name in ("config.yaml", "provenance.json"):
        (tmp_path / name).write_text((GOLDEN / "uncha" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    (tmp_path / "last_checkpoint.txt").write_text("checkpoint_00000002.pth", encoding="utf-8")

    train(["--resume", "--num-gpus", "0", "--output-dir", str(tmp_path)])

    golden = [json.loads(line) for line in lines]
    got = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["iteration"] for line in got] == [1, 2, 3, 4]
    terms = list(json.loads(lines[2]))
    for new, old in zip(got, golden, strict=True):
        for term in terms[1 : terms.index("curv") + 2]:
            # A caption and the caption of its box can be equal but for rounding: the angle between them is then any
            # angle, one per processor, once the weights have moved. One of the eight pairs of a step is so here.
            rounding = new["iteration"] == 4 and term.startswith("cross_text_")
            bound = {"abs": math.pi / 8} if rounding else {"rel": 1e-5}
            assert new[term] == pytest.approx(old[term], **bound), (old["iteration"], term)


def test_results_are_read_and_measured_again_alike(
    demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_data)
    checkpoint = unpack("uncha/checkpoint_00000002.pth.gz", tmp_path)
    golden = (GOLDEN / "uncha" / "results.json").read_text(encoding="utf-8")
    (tmp_path / "results.json").write_text(golden, encoding="utf-8")
    names = list(json.loads(golden)["results"])
    flags = ["--config", str(ROOT / "configs" / "eval_demo.py"), "--checkpoint-path", str(checkpoint)]

    assert evaluate([*flags, "--only", ",".join(names)]) == 0

    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    for name, entry in json.loads(golden)["results"].items():
        for metric, value in entry["metrics"].items():
            assert kept[name]["metrics"][metric] == pytest.approx(value, rel=1e-6), (name, metric)


def test_a_checkpoint_with_feature_transforms_loads(tmp_path: Path) -> None:
    path = unpack("i0t_async/checkpoint_final.pth.gz", tmp_path)
    weights = torch.load(path, weights_only=True)["model"]

    model = hypvl.create_model(path, path)

    state = model.state_dict()
    assert set(state) == {new_name(key) for key in weights} != set(weights)
    assert all(torch.equal(state[new_name(key)], value) for key, value in weights.items())


def test_patterns_of_renamed_parameters_follow_them(tmp_path: Path) -> None:
    path = tmp_path / "train_i0t_async_demo.yaml"
    path.write_text(CONFIGS["train_i0t_async_demo"], encoding="utf-8")
    config = LazyConfig.load(path)
    assert config.optim.parameters.trainable == ["model.image_transforms.*", "model.text_transforms.*"]
    assert config.train.init_missing == ["image_transforms.*", "text_transforms.*"]
