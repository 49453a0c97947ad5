"""A training step with a frozen teacher against the step without it, and the teacher's forward pass alone.

    python -m benchmarks.teacher --rows 16 --repeats 5

Student: the image encoder of `configs/train_meru_vit_s.py` (ViT-S/16) and 12 text layers of width 512, on random images
of --image-size pixels. Teacher: another ViT-S/16, frozen, which sees the same images; SimReg compares the features.
Forward and backward in fp32, in turn in one process. `ratio` = (step with the teacher - step without it) / forward pass
of the teacher in evaluation mode without a graph: 1 = the teacher costs its forward pass and nothing else. Medians.
Prints one JSON line.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.common import count, report
from benchmarks.grad_cache import CONFIG, batch_of, step
from hypvl.config import LazyConfig, instantiate
from hypvl.losses.base import Objective
from hypvl.losses.simreg import SimReg
from hypvl.training.step import Learner
from hypvl.training.teachers import FrozenTeacher


def learner_of(image_size: int, *, taught: bool) -> Learner:
    """The student with its own loss, and with ``taught`` a teacher and SimReg besides."""
    cfg = LazyConfig.load(CONFIG)
    cfg.model.visual.image_size = image_size
    torch.manual_seed(0)
    model, objective = instantiate(cfg.model), instantiate(cfg.train.objective)
    if not taught:
        return Learner(model, objective).train()
    terms = {**dict(objective.terms.items()), "simreg": SimReg(student="image", teacher="image@teacher")}
    teacher = FrozenTeacher(instantiate(cfg.model))
    return Learner(model, Objective(terms), {"teacher": teacher}).train()


def seconds(run: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=count, default=16)
    parser.add_argument("--image-size", type=count, default=112)
    parser.add_argument("--repeats", type=count, default=5)
    args = parser.parse_args()
    batch = batch_of(args.rows, args.image_size)
    plain, taught = (learner_of(args.image_size, taught=value) for value in (False, True))
    teacher = taught.get_teachers()["teacher"].encoder

    @torch.no_grad()
    def forward() -> None:
        teacher.encode_image(batch["image"], stage="features")  # type: ignore[operator]  # a DualEncoder

    runs = {
        "plain": lambda: step(plain, batch, None),
        "taught": lambda: step(taught, batch, None),
        "forward": forward,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.repeats + 1):
        for name, run in runs.items():
            plain.zero_grad(set_to_none=True), taught.zero_grad(set_to_none=True)
            if (spent := seconds(run)) and turn:  # the first turn warms up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
    report(
        "teacher",
        {
            "rows": args.rows,
            "plain_seconds": round(median["plain"], 4),
            "taught_seconds": round(median["taught"], 4),
            "forward_seconds": round(median["forward"], 4),
            "ratio": round((median["taught"] - median["plain"]) / median["forward"], 3),
        },
    )


if __name__ == "__main__":
    main()
