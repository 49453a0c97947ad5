"""How many files of hypvl one retrieval evaluation and one training step run through.

A file counts when one of its functions runs. What runs while a module is imported (decorators, tables made by a
function) does not count. Prints one JSON line with the files.

    python -m benchmarks.files_crossed

The evaluation is `scripts/evaluate.py` with configs/eval_zero_shot_retrieval.py and its one JSONL data set, from the
parsed flags to the written results. The step is that of `configs/train_meru_demo.py`: batch on the host, forward, loss,
backward, update; not the data loader before it nor the hooks after it.
"""

import contextlib
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image

import hypvl
from benchmarks.common import report
from hypvl.cli.evaluate import main as evaluate
from hypvl.config import LazyConfig, instantiate
from hypvl.training.loop import Trainer
from hypvl.training.step import Learner, Precision

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(Path(hypvl.__file__).resolve().parent) + "/"
CONFIG = ROOT / "configs" / "train_meru_demo.py"
_OPTIMIZED = 0x1  # flag of the code of functions; modules and bodies of classes lack it


def importing(frame: FrameType | None) -> bool:
    """Whether a module of hypvl is being imported where ``frame`` runs."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Files of hypvl of which a function runs in this process while the context is open, relative to the package."""
    files: set[str] = set()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & _OPTIMIZED and code.co_filename.startswith(PACKAGE):
            file = code.co_filename.removeprefix(PACKAGE)
            if file not in files and not importing(frame):
                files.add(file)

    with torch.autograd.set_multithreading_enabled(False):
        sys.setprofile(profile)
        try:
            yield files
        finally:
            sys.setprofile(None)


def retrieval(folder: Path) -> list[str]:
    """Files that the command runs through, with a model of random weights; its data and results are in ``folder``."""
    config = LazyConfig.load(CONFIG)
    state = instantiate(config.model).state_dict()
    checkpoint = folder / "model.pth"
    content = {"format_version": 1, "model": state, "iteration": 0, "config": LazyConfig.to_yaml(config)}
    torch.save(content, checkpoint)
    (folder / "images").mkdir()
    lines = []
    for index in range(8):
        Image.new("RGB", (64, 64), (index * 30, 0, 0)).save(folder / "images" / f"{index}.png")
        lines.append(
            {"image_file": f"{index}.png", "description": f"a red of shade {index}", "split": "test"}
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "docci_descriptions.jsonlines").write_text(text)
    flags = ["--config", str(ROOT / "configs" / "eval_zero_shot_retrieval.py"), "--only", "docci"]
    flags += ["--checkpoint-path", str(checkpoint), "--num-workers", "0", "--device", "cpu"]
    silence = contextlib.redirect_stdout(io.StringIO())
    with silence, contextlib.redirect_stderr(io.StringIO()), recorded() as files:
        if evaluate([*flags, f"roots.docci={folder}"]):
            raise RuntimeError("the evaluation failed")
    return sorted(files)


def training_step(rows: int = 8) -> list[str]:
    """Files that the training loop runs through in the second step; the first one checks more."""
    config = LazyConfig.load(CONFIG)
    learner = Learner(instantiate(config.model), instantiate(config.train.objective))
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randint(0, 256, (rows, 3, 64, 64), dtype=torch.uint8, generator=generator),
        "text": torch.randint(1, 40000, (rows, 77), generator=generator),
        "position": torch.arange(rows),
        "bad": [],
    }
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    precision = Precision.choose("fp32", torch.device("cpu"))
    trainer = Trainer(
        learner=learner,
        module=learner,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        loader=itertools.repeat(batch),
        precision=precision,
        scaler=precision.make_scaler(),
        num_iterations=1,
        global_batch_size=rows,
        epoch_size=1000,
    )
    trainer.run()
    trainer.num_iterations = 2
    with recorded() as files:
        trainer.run()
    return sorted(files)


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as name:
        evaluated = retrieval(Path(name))
    stepped = training_step()
    figures = {"retrieval": len(evaluated), "step": len(stepped)}
    report("files_crossed", {**figures, "retrieval_files": evaluated, "step_files": stepped})


if __name__ == "__main__":
    main()
