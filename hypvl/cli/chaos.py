"""Kill a training run at random moments, resume it to its end, and compare it with one that nobody disturbed."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import (
    CommandParser,
    load_config,
    run_main,
    show,
    show_json,
    user_path,
    user_text,
)
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError
from hypvl.io.progress import terminal_bar

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hypvl.cli.killed_runs import Kill, Run

EXAMPLES = """
examples:
  hypvl chaos --kills 30 --output-dir output/chaos
  two ranks; half of the kills hit one of them alone
  hypvl chaos --kills 30 --ranks 2 --output-dir output/chaos2 --json
  a recipe of yours, short
  hypvl chaos --config clip_demo --output-dir output/chaos3 train.num_iterations=200 train.checkpoint_period=10
exit codes: 0 both runs are the same bit for bit, 1 they differ, or a start failed by itself. On the CPU, where sums do
not depend on chance. Speed, memory and time are not compared.
"""
DIFFERENT = 1
_RECIPE = "meru_demo"
#: What makes the recipe small. With them a run takes seconds, and a third of its time writes checkpoints.
_SMALL = [
    "model.visual.width=32", "model.visual.depth=1", "model.visual.heads=2", "model.visual.image_size=32",
    "model.textual.arch=L1_W64_A2", "train.total_batch_size=16", "train.num_workers=1", "train.log_period=3",
    "train.checkpoint_period=5", "train.keep_checkpoints=3", "train.root_samples=32",
    "optim.lr_scheduler.warmup_steps=5", "train.objective.warmup.entailment=[5,20]",
]  # fmt: skip


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--config", type=user_text,
        help="what to train, with its data (default: a small MERU, on demo data that are drawn for it)",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir",
        type=user_path,
        default=Path("output/chaos"),
        help="folder of both runs; new, or empty",
    )
    parser.add_argument("--kills", type=whole(least=1), default=25, help="times that the run is killed")
    parser.add_argument("--ranks", type=whole(least=1), default=1, help="CPU processes of each run")
    parser.add_argument("--seed", type=whole(least=0), default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="changes to the config, as for hypvl train"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Train twice and compare; 1 where the runs differ."""
    args = build_parser().parse_args(argv)
    # As in train and under torchrun; before torch comes in.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.ranks > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder: Path = args.output_dir
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output-dir: {folder} is not an empty folder; name a new one.")
    cfg = _config(args)

    from hypvl.cli.killed_runs import Run

    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with terminal_bar("undisturbed run") as move_bar:
        whole = Run(cfg, folder / "undisturbed", ranks=args.ranks, log=log)
        pace = whole.finish()
        killed = Run(cfg, folder / "killed", ranks=args.ranks, log=log)
        kills: list[Kill] = []
        _disturb(killed, kills, args, pace=pace, iterations=int(cfg.train.num_iterations), move_bar=move_bar)
    report = {
        "config": args.config or f"{_RECIPE}, small",
        "ranks": args.ranks,
        "seed": args.seed,
        "iterations": int(cfg.train.num_iterations),
        "asked": args.kills,
        "starts": killed.starts,
        "kills": [vars(kill) for kill in kills],
        "by_moment": _by_moment(kills),
        "differences": _differences(whole, killed),
    }
    report["equal"] = not any(report["differences"].values())
    if args.json:
        show_json(report)
    else:
        _print(report)
    return 0 if report["equal"] else DIFFERENT


def _config(args: Any) -> "DictConfig":
    """The user's config, or the small recipe with data drawn for it and steps for every kill."""
    if args.config is not None:
        return load_config(
            args.config, args.overrides, required=("dataset", "model", "optim", "train"), prefix="train_"
        )
    from hypvl.data.demo.build import DemoArguments, make_demo_data

    data = args.output_dir / "data"
    cfg = load_config(
        _RECIPE,
        [
            *_SMALL,
            f"train.num_iterations={20 + 10 * args.kills}",
            f"dataset.tarfiles=[{data}/train/*.tar]",
            *args.overrides,
        ],
        prefix="train_",
    )
    make_demo_data(data, DemoArguments(num_train=64, num_test=4, num_digits=100))
    return cfg


def _disturb(
    run: "Run", kills: "list[Kill]", args: Any, *, pace: Any, iterations: int, move_bar: Any
) -> None:
    """Start, kill and resume until all kills are used up, and then train to the end."""
    from hypvl.cli.killed_runs import Plan, plans

    generator = random.Random(args.seed)
    for number, (moment, ranks) in enumerate(plans(args.kills, ranks=args.ranks, seed=args.seed)):
        move_bar(number, args.kills, f"kills, {run.iteration()} of {iterations} steps")
        # On average the steps that are left are spread over the kills that are left.
        ahead = 2 * (iterations - run.iteration()) / (args.kills - number + 1)
        plan = Plan(
            moment,
            ranks,
            iteration=run.iteration() + generator.uniform(0, ahead),
            share=generator.uniform(0, 1),
        )
        kill = run.die(plan, pace)
        if kill is None:
            return
        kills.append(kill)
    run.finish()


def _by_moment(kills: "Sequence[Kill]") -> dict[str, dict[str, int]]:
    """How many kills hit at each moment: all, those of one rank alone, and those that left half a file."""
    from hypvl.cli.killed_runs import MOMENTS

    every = max((len(kill.ranks) for kill in kills), default=1)
    result: dict[str, dict[str, int]] = {}
    for moment in MOMENTS:
        those = [kill for kill in kills if kill.moment == moment]
        result[moment] = {
            "kills": len(those),
            "of_one_rank": sum(len(kill.ranks) < every for kill in those),
            "left_half_a_file": sum(bool(kill.left) for kill in those),
            "left_a_rank_hanging": sum(bool(kill.hanging) for kill in those),
        }
    return result


def _differences(whole: "Run", killed: "Run") -> dict[str, list[str]]:
    """Where the two runs differ: the final checkpoint, the records, the files in their folders."""
    from hypvl.io.json_text import parse_json
    from hypvl.models.checkpoint_io import FINAL_NAME, load_checkpoint
    from hypvl.report.difference import record_differences
    from hypvl.training.checkpoints.same_state import state_differences
    from hypvl.training.run_folder import METRICS_NAME

    folders = whole.folder, killed.folder
    states = [load_checkpoint(folder / FINAL_NAME) for folder in folders]
    records = [
        [parse_json(line) for line in (folder / METRICS_NAME).read_bytes().splitlines()] for folder in folders
    ]
    names = [{path.name for path in folder.iterdir()} for folder in folders]
    return {
        "checkpoint": state_differences(*states),
        "records": [difference.key for difference in record_differences(*records)],
        "files": sorted(names[0] ^ names[1]),
    }


def _print(report: dict[str, Any]) -> None:
    from hypvl.cli.killed_runs import MOMENTS
    from hypvl.report.tables import print_table, rich_table

    rows = [[MOMENTS[moment], *map(str, counts.values())] for moment, counts in report["by_moment"].items()]
    total = [sum(values) for values in zip(*(c.values() for c in report["by_moment"].values()), strict=True)]
    rows.append(["all", *map(str, total)])
    header = ("SIGKILL", "kills", "of one rank", "left half a file", "left a rank hanging")
    print_table(rich_table(rows, header=header))
    if total[0] < report["asked"]:
        show(
            f"the run was over after {total[0]} of {report['asked']} kills: raise train.num_iterations for more"
        )
    for part, keys in report["differences"].items():
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            show(f"{part}: different: {', '.join(keys[:5])}{more}")
    same = "equal, bit for bit" if report["equal"] else "different"
    show(f"ranks: {report['ranks']}, steps: {report['iterations']}, starts: {report['starts']}; {same}")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
