"""The examples of docs/extending work as they stand: their files are written, their tests and commands are run.

The allow-list is written first, as the pages say; ruff and the suites that find new parts by themselves see them, too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from hypvl.data.demo.build import DemoArguments, make_demo_data
from tests.evaluation.smoke import make_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "extending"
FILE = re.compile(r"^```python\n# (?P<path>[\w/]+\.py)\n(?P<content>.*?)^```", re.M | re.S)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)
# Added to a command: a few steps of a small batch in place of a whole run, and the like.
SHORT = {
    "demo-data": ["--num-train", "24", "--num-test", "8", "--num-digits", "100"],
    "train": [
        "train.num_iterations=2",
        "train.total_batch_size=8",
        "train.root_samples=8",
        "train.num_workers=0",
        "optim.lr_scheduler.warmup_steps=1",
    ],
    "evaluate": ["--device", "cpu", "--num-workers", "0"],
    "audit": ["--device", "cpu", "--num-workers", "0"],
    "traverse": ["--device", "cpu"],
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository in which a page's files can be written."""
    for name in ("hypvl", "configs", "tests"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "reference", "golden", "field_reports"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # what ruff is to check
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(page: str, folder: Path) -> list[str]:
    """Write the files of a page; their paths. A page edits none that exists."""
    blocks = list(FILE.finditer((PAGES / page).read_text(encoding="utf-8")))
    for block in blocks:
        path = folder / block["path"]
        assert not path.exists(), path
        path.write_text(block["content"], encoding="utf-8")
    return [block["path"] for block in blocks]


def run(page: str, files: list[str], folder: Path, *, suites: Sequence[str] = ()) -> str:
    """Check the files of a page, run its tests, the suites and its commands; what they printed.

    Args:
        page: Name of the page.
        files: Those it wrote.
        folder: The checkout.
        suites: What pytest runs besides.
    """
    for check in (["check"], ["format", "--check"]):
        call([sys.executable, "-m", "ruff", *check, "--no-cache", *files], folder)
    # A new target: the first run writes the list and fails, as the page says.
    new = any("@configurable" in (folder / path).read_text(encoding="utf-8") for path in files)
    allow_list = ["tests/test_allowlist.py::test_the_list_is_written_from_the_marks"]
    tests = [(1 if new else 0, allow_list), (0, allow_list)]
    tests += [(0, own)] if (own := [path for path in files if path.startswith("tests/")]) else []
    tests += [(0, list(suites))] if suites else []
    code = (
        "import pytest\n"
        "from hypvl.cli.registry import dispatch\n"
        f"for status, words in {tests}:\n"
        "    assert pytest.main(['-q', '-p', 'no:cacheprovider', *words]) == status, words\n"
        f"for words in {commands(page)}:\n"
        "    assert dispatch(words) == 0, words\n"
    )
    return call([sys.executable, "-c", code], folder)


def commands(page: str) -> list[list[str]]:
    """Each command of a page, without ``hypvl``, with what makes it short."""
    blocks = "\n".join(COMMANDS.findall((PAGES / page).read_text(encoding="utf-8")))
    lines = [shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines()]
    assert all(line[0] == "hypvl" for line in lines)
    return [[name, *words, *SHORT.get(name, [])] for _, name, *words in lines]


def call(command: Sequence[str], folder: Path) -> str:
    """Run a command that must succeed; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_page_is_tested() -> None:
    assert {f"test_{page.stem}" for page in PAGES.glob("*.md")} <= set(globals())


def draw(path: Path, color: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (70, 64), color).save(path)


@pytest.mark.slow
def test_add_a_loss(checkout: Path) -> None:
    files = write_files("add_a_loss.md", checkout)
    assert len(files) == 4
    suites = ["tests/config/test_ranges.py", "tests/test_objectives.py", "-k", "HardestNegative or vse"]
    run("add_a_loss.md", files, checkout, suites=suites)
    assert (checkout / "output/vse/checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_add_a_metric(checkout: Path) -> None:
    files = write_files("add_a_metric.md", checkout)
    assert len(files) == 4
    make_demo_data(checkout / "datasets/demo", DemoArguments(num_train=16, num_test=8))
    (checkout / "output/demo_meru").mkdir(parents=True)
    make_checkpoint("meru", checkout).rename(checkout / "output/demo_meru/checkpoint_final.pth")
    run("add_a_metric.md", files, checkout)
    results = json.loads((checkout / "output/demo_meru/results.json").read_text())["results"]
    assert "text_to_image_cmc_auc@10" in results["scenes_retrieval"]["intervals"]


@pytest.mark.slow
def test_add_a_dataset(checkout: Path) -> None:
    rows = ["image,caption"]
    for number in range(12):
        color = ("red", "blue")[number % 2]
        draw(checkout / f"datasets/mine/images/{number}.png", color)
        draw(checkout / f"datasets/mine/classes/{color}/{number}.png", color)
        rows.append(f"images/{number}.png,a {color} square number {number}")
    (checkout / "datasets/mine/pairs.csv").write_text("\n".join(rows) + "\n")
    files = write_files("add_a_dataset.md", checkout)
    assert files == ["configs/train_mine.py", "configs/eval_mine.py"]
    printed = run("add_a_dataset.md", files, checkout)
    assert "mean_per_class_accuracy" in printed and "text_to_image_recall@1" in printed


@pytest.mark.slow
def test_add_a_benchmark(checkout: Path) -> None:
    files = write_files("add_a_benchmark.md", checkout)
    assert len(files) == 6
    for number, color in enumerate(("red", "green")):
        draw(checkout / f"datasets/prepositions/images/{number}.png", color)
    entries = [
        {"image_path": f"images/{i}.png", "caption_options": ["a cup on a table", "a cup under a table"]}
        for i in range(2)
    ]
    (checkout / "datasets/prepositions/test.json").write_text(json.dumps(entries))
    (checkout / "output/demo_meru").mkdir(parents=True)
    make_checkpoint("meru", checkout).rename(checkout / "output/demo_meru/checkpoint_final.pth")
    assert "accuracy_preposition" in run("add_a_benchmark.md", files, checkout)


@pytest.mark.slow
def test_add_a_geometry(checkout: Path) -> None:
    draw(checkout / "assets/shapes.png", "red")
    files = write_files("add_a_geometry.md", checkout)
    assert len(files) == 3
    suites = ["tests/geometry/test_conformance.py", "tests/test_configs.py", "-k", "conformance or poincare"]
    printed = run("add_a_geometry.md", files, checkout, suites=suites)
    assert "verdict:" in printed and "[ROOT] is the root of the space." in printed


@pytest.mark.slow
def test_add_an_encoder(checkout: Path) -> None:
    files = write_files("add_an_encoder.md", checkout)
    assert len(files) == 3
    suites = ["tests/config/test_ranges.py", "tests/test_configs.py", "-k", "Mixer or mixer"]
    assert "digits" in run("add_an_encoder.md", files, checkout, suites=suites)
    assert (checkout / "output/mixer/checkpoint_final.pth").is_file()
