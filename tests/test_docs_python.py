"""The Python of docs/python.md and docs/own_loop.md, run in a folder with a small model; own loops agree."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import from_pretrained
from tests.integrations.miniature import write_checkpoint
from tests.training.tiny import tiny_batch, tiny_model

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, an image and two classes of images, where the pages expect them."""
    root = tmp_path_factory.mktemp("pages")
    for place in ("output/demo_meru", "assets", "photos/cat", "photos/dog"):
        (root / place).mkdir(parents=True)
    write_checkpoint(root / "output" / "demo_meru" / "checkpoint_final.pth")
    for name in ("assets/cat.png", *(f"photos/{c}/{n}.png" for c in ("cat", "dog") for n in range(3))):
        Image.effect_noise((40, 50), 80).convert("RGB").save(root / name)
    (root / "own_loop.py").write_text(blocks("own_loop.md")[0])
    return root


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("own_loop", None)


EVERY_BLOCK = [(page, number) for page in ("python.md", "own_loop.md") for number in range(len(blocks(page)))]


@pytest.mark.parametrize(("page", "number"), EVERY_BLOCK)
def test_a_block_of_the_page_runs(page: str, number: int, there: Path) -> None:
    code = blocks(page)[number]
    if "sentence_transformers" in code:
        pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    if "accelerate" in code:
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    exec(compile(code, f"{page}[{number}]", "exec"), {"__name__": "page"})
    if "save_pretrained(" in code:
        assert isinstance(from_pretrained("output/mine"), DualEncoder)


BATCHES = [tiny_batch(6, seed=seed) for seed in range(6)]


def plain_losses(there: Path, *, backend: str | None = None) -> list[float]:
    own_loop = import_module("own_loop")

    learner = own_loop.make_learner(tiny_model("meru"))
    if backend is not None:
        learner.compile(backend=backend)
    losses: list[float] = own_loop.train(learner, own_loop.make_optimizer(learner), BATCHES)
    return losses


def test_the_loop_learns(there: Path) -> None:
    own_loop = import_module("own_loop")

    learner = own_loop.make_learner(tiny_model("meru"))
    losses = own_loop.train(learner, own_loop.make_optimizer(learner, lr=3e-3), [BATCHES[0]] * 30)
    assert losses[-1] < 0.5 * losses[0]
    assert sum(1 for line in blocks("own_loop.md")[0].splitlines() if line.strip()) <= 36


def test_losses_under_accelerate_are_those_of_the_plain_loop(there: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    code = blocks("own_loop.md")[2]
    loop = code[code.index("learner = ") :].replace("[make_batch(model, transform, pairs)] * 3", "BATCHES")
    assert "for batch in BATCHES:" in loop
    losses: list[float] = []
    names: dict[str, Any] = {"model": tiny_model("meru"), "BATCHES": BATCHES, "losses": losses}
    names["Accelerator"] = lambda: accelerate.Accelerator(cpu=True)
    exec("from own_loop import *", names)
    exec(loop.rstrip() + "\n    losses.append(output.total.item())\n", names)
    assert losses == plain_losses(there)


@pytest.mark.slow
def test_losses_under_compile_are_those_of_the_plain_loop(there: Path) -> None:
    """By Dynamo and AOTAutograd; tests/training/test_compile.py has inductor, which needs minutes."""
    torch.testing.assert_close(
        torch.tensor(plain_losses(there, backend="aot_eager")),
        torch.tensor(plain_losses(there)),
        rtol=1e-5,
        atol=1e-5,
    )


TWO_PROCESSES = """
import sys
sys.path[:0] = sys.argv[1:3]
from accelerate import Accelerator
from own_loop import make_learner, make_optimizer
from tests.training.tiny import rows_of, tiny_batch, tiny_model
accelerator = Accelerator(cpu=True)
learner = make_learner(tiny_model("meru"))
wrapped, optimizer = accelerator.prepare(learner, make_optimizer(learner))
for seed in range(4):
    batch = rows_of(tiny_batch(6, seed=seed), accelerator.process_index, accelerator.num_processes)
    learner.constrain_()
    output, ctx = wrapped(batch)
    optimizer.zero_grad()
    accelerator.backward(output.total)
    accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
    optimizer.step()
    learner.update_(ctx)
    mean = accelerator.reduce(output.total.detach(), reduction="mean").item()
    if accelerator.is_main_process:
        print("loss", accelerator.num_processes, mean)
"""


@pytest.mark.slow
def test_two_processes_of_accelerate_have_the_losses_of_one(there: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    (there / "two.py").write_text(TWO_PROCESSES)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "two.py", str(there)]
    done = subprocess.run(
        [sys.executable, *command, str(DOCS.parent)], capture_output=True, text=True, check=False, timeout=300
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("loss ")]
    assert [line[1] for line in lines] == ["2"] * 4, done.stderr
    losses = torch.tensor([float(line[2]) for line in lines])
    torch.testing.assert_close(losses, torch.tensor(plain_losses(there)[:4]), rtol=1e-5, atol=1e-5)
