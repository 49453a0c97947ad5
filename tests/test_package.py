"""A wheel, installed where nothing of the checkout is: imports, makes models, runs every command from any folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.test_house import ROOT

pytestmark = pytest.mark.slow

# Runs in the new environment, in an empty folder; prints one JSON line.
USE = """
import json, sys
from pathlib import Path

import hypvl
assert "torch" not in sys.modules
from hypvl.config import LazyConfig, instantiate
from hypvl.data.demo.build import DemoArguments, make_demo_data
from hypvl.data.loader import Loader
from hypvl.data.demo.mapper import DemoMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import RandomResizedCrop
from hypvl.datasets import text_pool
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment
from hypvl.training.step import Learner
import torch
from importlib import resources

tokenizer = hypvl.get_tokenizer()
config = LazyConfig.from_dict(json.loads((resources.files("hypvl") / "models/zoo/meru_vit_s.json").read_text()))
config.model.visual = {
    "_target_": "hypvl.encoders.conv_vit.ConvStemViT", "width": 32, "depth": 1, "heads": 2, "image_size": 32,
}
config.model.textual.arch = "L1_W64"
torch.manual_seed(0)
model, train_transform, eval_transform = hypvl.create_model_and_transforms(config)
make_demo_data("demo", DemoArguments(num_train=24, num_test=4))
dataset = ImageTextShards(
    tarfiles=["demo/train/*.tar"], mapper=DemoMapper(), image_transform=RandomResizedCrop(32), tokenizer=tokenizer
)
loader = Loader(dataset, global_batch_size=8, rank=0, world_size=1, num_workers=0, seed=0)
batch = next(iter(loader))
objective = Objective(
    terms={
        "contrastive": Contrastive(pairs=[["image", "text"], ["text", "image"]]),
        "entailment": Entailment(general="text", specific="image", aperture_factor=1.0),
    },
    weights={"contrastive": 1.0, "entailment": 0.2},
)
learner = Learner(model.train(), objective)
optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
losses = []
for _ in range(2):
    learner.constrain_()
    output, _ = learner(batch)
    optimizer.zero_grad()
    output.total.backward()
    optimizer.step()
    losses.append(float(output.total.detach()))
print(json.dumps({
    "file": hypvl.__file__,
    "version": hypvl.__version__,
    "models": hypvl.list_models(),
    "ids": tokenizer("a photo of a cat")[0].tolist(),
    "losses": losses,
    "pools": sorted(p.name for p in (resources.files("hypvl") / "datasets/pools").iterdir()),
}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    (source / "datasets").mkdir()
    shutil.copy(ROOT / "datasets/README.md", source / "datasets")
    for name in ("hypvl", "configs", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*pip, "-w", str(out), str(source)], out)
    (built,) = out.glob("hypvl-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and the dependencies of the running one."""
    environment = tmp_path_factory.mktemp("installed") / "env"
    make_environment(environment)
    # --ignore-installed: the running environment may hold hypvl itself, as an editable install
    pip_install(environment, "--no-deps", "--ignore-installed", str(wheel))
    return environment


def make_environment(environment: Path, *, dependencies: bool = True) -> None:
    """A virtual environment that sees the packages of the running one (``dependencies``), or nothing."""
    run([sys.executable, "-m", "venv", str(environment)], environment.parent)
    if dependencies:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        beside = environment / "lib" / version / "site-packages" / "dependencies.pth"
        beside.write_text(sysconfig.get_paths()["purelib"] + "\n")


def pip_install(environment: Path, *words: str) -> None:
    run([str(environment / "bin" / "python"), "-m", "pip", "install", "-q", *words], environment.parent)


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command in ``folder``, which sees neither the checkout nor this environment."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        metadata = archive.read(next(name for name in inside if name.endswith("METADATA"))).decode()
        recipes = {name: archive.read(name) for name in inside if name.startswith("hypvl/recipes/")}
    checkout = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hypvl").rglob("*")
        if path.suffix in {".py", ".json", ".txt", ".gz", ".html", ".css", ".js"} or path.name == "py.typed"
    }
    docs = {name for name in inside if name.startswith("hypvl/docs/")}
    assert docs == {
        "hypvl/docs/datasets/README.md",
        *(f"hypvl/{page.relative_to(ROOT).as_posix()}" for page in (ROOT / "docs").rglob("*.md")),
    }
    configs = ROOT / "configs"
    assert recipes == {
        f"hypvl/recipes/{path.relative_to(configs).as_posix()}": path.read_bytes()
        for path in configs.rglob("*.py")
    }
    own = {name for name in inside if not name.split("/")[0].endswith(".dist-info")}
    assert own - set(recipes) - docs == checkout
    assert any(name.endswith("/LICENSE") for name in inside)
    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: torch<3,>=2.10" in metadata


def test_the_recipes_are_in_a_source_distribution(source: Path, tmp_path: Path) -> None:
    run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)], source)
    (built,) = tmp_path.glob("hypvl-*.tar.gz")
    with tarfile.open(built) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")} <= inside


def test_an_editable_install_has_the_command_and_the_recipes(source: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "env", tmp_path / "elsewhere"
    folder.mkdir()
    make_environment(environment)
    pip_install(environment, "--no-deps", "--no-build-isolation", "--ignore-installed", "-e", str(source))
    hypvl = str(environment / "bin" / "hypvl")
    listed = json.loads(run([hypvl, "recipes", "--json"], folder))
    assert [entry["file"] for entry in listed] == [
        str(source / "configs" / path.name) for path in sorted((ROOT / "configs").glob("*.py"))
    ]


@pytest.mark.parametrize("network", [False, True], ids=["offline", "network"])
def test_an_installed_wheel_works(wheel: Path, installed: Path, tmp_path: Path, network: bool) -> None:
    """Offline, the dependencies are those of the running environment; pip checks that none is undeclared.

    With HYPVL_TEST_NETWORK=1 also in an environment that is empty but for what pip fetches (some minutes).
    """
    if network and os.environ.get("HYPVL_TEST_NETWORK") != "1":
        pytest.skip("set HYPVL_TEST_NETWORK=1 to install every dependency anew")
    environment, folder = installed, tmp_path / "elsewhere"
    folder.mkdir()
    if network:
        environment = tmp_path / "env"
        make_environment(environment, dependencies=False)
        pip_install(environment, "-c", str(ROOT / "constraints.txt"), str(wheel))
    python = environment / "bin" / "python"
    if not network:
        run([str(python), "-m", "pip", "check"], folder)
    result = json.loads(run([str(python), "-c", USE], folder).splitlines()[-1])
    assert Path(result["file"]).is_relative_to(environment)
    assert f'__version__ = "{result["version"]}"' in (ROOT / "hypvl" / "__init__.py").read_text()
    assert result["models"] == sorted(path.stem for path in (ROOT / "hypvl/models/zoo").glob("*.json"))
    assert result["ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert result["pools"] == sorted(path.name for path in (ROOT / "hypvl/datasets/pools").glob("*.json"))
    first, second = result["losses"]
    assert second < first  # one step on the same batch helps


def test_the_command_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """From data to results with nothing but the wheel: hypvl's own recipes, and one made from them."""

    def hypvl(*words: str) -> str:
        return run([str(installed / "bin" / "hypvl"), *words], tmp_path)

    listed = json.loads(hypvl("recipes", "--json"))
    assert all(Path(entry["file"]).is_relative_to(installed) for entry in listed)
    assert {"train_meru_demo", "eval_demo"} <= {entry["name"] for entry in listed}
    assert not any(tmp_path.iterdir())

    hypvl("demo-data", "--num-train", "24", "--num-test", "8", "--num-digits", "100")
    small = ["train.num_iterations=1", "optim.lr_scheduler.warmup_steps=0", "train.total_batch_size=8"]
    hypvl("train", "--config", "meru_demo", "--num-gpus", "0", "--output-dir", "output/run", *small)
    assert (tmp_path / "output/run/checkpoint_final.pth").is_file()
    hypvl(
        "evaluate",
        "--config",
        "demo",
        "--checkpoint-path",
        "output/run",
        "--only",
        "scenes_retrieval,scenes_radii",
    )
    results = json.loads((tmp_path / "output/run/results.json").read_text())["results"]
    assert {name: entry["status"] for name, entry in results.items()} == {
        "scenes_retrieval": "ok", "scenes_radii": "ok",
    }  # fmt: skip

    hypvl("report", "--run", "output/run", "--output", "report.html")
    assert (
        (tmp_path / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    )
    hypvl("export", "--to", "onnx", "--checkpoint-path", "output/run", "--output", "output/onnx")
    assert sorted(path.suffix for path in (tmp_path / "output/onnx").glob("*.onnx")) == [".onnx", ".onnx"]

    hypvl("new", "mine", "--from", "meru_demo")
    hypvl("train", "--config", "mine", "--num-gpus", "0", "--output-dir", "output/mine", *small)
    assert (tmp_path / "output/mine/checkpoint_final.pth").is_file()
