"""The examples of docs/extending work as they stand: their files are written, their tests and commands are run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hypvl.data.demo.build import DemoArguments, make_demo_data
from tests.evaluation.smoke import make_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "extending"
FILE = re.compile(r"^```python\n# (?P<path>[\w/]+\.py)\n(?P<content>.*?)^```", re.M | re.S)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)
# A few steps of a small batch in place of a whole run.
SHORT = ["train.num_iterations=2", "train.total_batch_size=8", "train.root_samples=8", "train.num_workers=0"]
SHORT += ["optim.lr_scheduler.warmup_steps=1"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository in which a page's files can be written."""
    for name in ("hypvl", "configs", "tests"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__", "reference", "golden", "field_reports"),
        )
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


def run(page: str, files: list[str], folder: Path) -> str:
    """Run the tests and the commands of a page in one process; what it printed."""
    calls = []
    for line in "\n".join(COMMANDS.findall((PAGES / page).read_text(encoding="utf-8"))).splitlines():
        python, script, *words = shlex.split(line)
        assert python == "python"
        words += SHORT if script == "scripts/train.py" else ["--device", "cpu", "--num-workers", "0"]
        calls.append(("hypvl.cli." + Path(script).stem, words))
    code = (
        "import importlib, sys, pytest\n"
        f"tests = {[path for path in files if path.startswith('tests/')]}\n"
        "assert not tests or pytest.main(['-q', '-p', 'no:cacheprovider', *tests]) == 0\n"
        f"for module, words in {calls}:\n"
        "    assert importlib.import_module(module).main(words) == 0, (module, words)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def draw(path: Path, color: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (70, 64), color).save(path)


def test_add_a_loss(checkout: Path) -> None:
    make_demo_data(
        checkout / "datasets/demo", DemoArguments(seed=0, num_train=24, num_test=8, num_digits=100)
    )
    files = write_files("add_a_loss.md", checkout)
    assert len(files) == 4
    run("add_a_loss.md", files, checkout)
    assert (checkout / "output/hardest_negative/checkpoint_final.pth").is_file()


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


def test_add_a_benchmark(checkout: Path) -> None:
    files = write_files("add_a_benchmark.md", checkout)
    assert len(files) == 6
    for number, color in enumerate(("red", "green")):
        draw(checkout / f"datasets/whatsup/images/{number}.png", color)
    entries = [
        {"image_path": f"images/{i}.png", "caption_options": ["a cup on a table", "a cup under a table"]}
        for i in range(2)
    ]
    (checkout / "datasets/whatsup/controlled_images.json").write_text(json.dumps(entries))
    (checkout / "output/demo_meru").mkdir(parents=True)
    make_checkpoint("meru", checkout).rename(checkout / "output/demo_meru/checkpoint_final.pth")
    assert "accuracy_preposition" in run("add_a_benchmark.md", files, checkout)
