"""Draw the demo data, train a small model on it, evaluate it, traverse an image, and write a report."""

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypvl.cli import evaluate, image_traversals, make_demo_data, report, train
from hypvl.cli.common import CommandParser, called_as, load_config, run_main, show, user_path
from hypvl.errors import UserError
from hypvl.io.files import write_atomically
from hypvl.io.json_text import json_bytes, parse_json

EXAMPLES = """
examples:
  hypvl demo
  hypvl demo --model atmg
"""
DATA = Path("datasets/demo")
IMAGE = Path("assets/shapes.png")  # of a checkout
UNTRAINED = "untrained.json"


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--model", choices=("meru", "clip", "atmg", "hycoclip"), default="meru", help="what to train"
    )
    parser.add_argument(
        "--output-dir", type=user_path, metavar="DIR", help="folder of the run (default: output/demo_<model>)"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Each step is the command that its line shows; a step that is done is not done again."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train, before torch comes in
    args = build_parser().parse_args(argv)
    folder = args.output_dir if args.output_dir is not None else Path(f"output/demo_{args.model}")
    config = f"{args.model}_demo"
    checkpoint = folder / "checkpoint_final.pth"

    _run("demo-data", make_demo_data.main, ["--output-dir", str(DATA)])
    _make_room(folder, config)
    if not checkpoint.is_file():
        interrupted = folder.is_dir() and any(folder.iterdir())
        _run(
            "train", train.main,
            [
                "--config", config, "--num-gpus", "0", "--output-dir", str(folder),
                *(["--resume"] if interrupted else []),
            ],
        )  # fmt: skip
    _run("evaluate", evaluate.main, ["--config", "demo", "--checkpoint-path", str(checkpoint)])
    image = IMAGE if IMAGE.is_file() else min((DATA / "eval" / "scenes_shape_seen").rglob("*.png"))
    _run(
        "traverse", image_traversals.main,
        [
            "--image-path", str(image), "--checkpoint-path", str(checkpoint),
            "--text-pool", str(DATA / "text_pool.json"), "--output-dir", str(folder / "traversals"),
        ],
    )  # fmt: skip
    untrained = _untrained_radii(config)
    write_atomically(folder / UNTRAINED, json_bytes(untrained, indent=1))
    results = parse_json((folder / evaluate.RESULTS).read_text())["results"]
    _summarise(args.model, results, untrained)
    _run("report", report.main, ["--run", str(folder), "--checkpoint-path", str(checkpoint)])
    show(
        "",
        f"checkpoint  {checkpoint}",
        f"metrics     {folder / 'metrics.jsonl'}, {folder / 'tensorboard'}",
        f"results     {folder / evaluate.RESULTS}",
        f"traversal   {folder / 'traversals' / f'{image.stem}.png'}",
        f"report      {folder / 'report.html'} (open it in a browser)",
    )
    return 0


def _run(name: str, command: Callable[[Sequence[str]], int], argv: list[str]) -> None:
    show("", f"$ hypvl {name} {shlex.join(argv)}")
    with called_as(f"hypvl {name}"):
        code = command(argv)
    if code != 0:
        raise UserError(f"demo: {name} ended with exit code {code}; see the lines above.")


def _make_room(folder: Path, config: str) -> None:
    """Rename the folder of a run with another config, so that this run starts in an empty one."""
    from hypvl.config import LazyConfig

    saved = folder / "config.yaml"
    if saved.is_file() and saved.read_text() != LazyConfig.to_yaml(load_config(config, prefix="train_")):
        number = 1
        while (previous := folder.with_name(f"{folder.name}_{number}")).exists():
            number += 1
        folder.rename(previous)
        show(f"{folder}: holds a run of another config; renamed to {previous}")


def _untrained_radii(config: str) -> dict[str, float]:
    """Mean radii of the model before training, for comparison."""
    import torch

    from hypvl.config import instantiate

    cfg = load_config(config, prefix="train_")
    torch.manual_seed(int(cfg.train.seed))
    model = instantiate(cfg.model).eval()
    metrics: dict[str, float] = instantiate(load_config("demo", prefix="eval_").evaluate.scenes_radii)(
        model
    ).metrics
    return metrics


def _summarise(model: str, results: dict[str, Any], untrained: dict[str, float]) -> None:
    from hypvl.report.tables import HEADER, print_table, result_rows, rich_table

    shown = ("mean_per_class_accuracy", "recall@", "radius", "share")
    main = {("scenes_hierarchy", "tie"), ("scenes_choices", "accuracy")}
    rows = []
    for row in result_rows(results):
        is_shown = any(part in row.metric for part in shown) or (row.evaluation, row.metric) in main
        if is_shown and "std" not in row.metric:
            before = untrained.get(row.metric) if row.evaluation == "scenes_radii" else None
            rows.append((*row.cells(), "" if before is None else f"{before:.4g}"))
    show("")
    print_table(rich_table(rows, header=(*HEADER, "untrained"), title=f"The demo in short: {model}"))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
