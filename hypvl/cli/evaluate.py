"""`scripts/evaluate.py`: measure a trained model on the data sets of a config."""

import argparse
import difflib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import DEBUG_VARIABLE, add_model_arguments, config_parser, load_config, run_main
from hypvl.cli.embeddings import add_embeddings_arguments, with_store
from hypvl.cli.results_file import ResultsFile, settings_digest
from hypvl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hypvl.cli.standardize import Standardizer
    from hypvl.models.dual_encoder import DualEncoder

EXAMPLES = """
examples:
  python scripts/evaluate.py --config configs/eval_zero_shot_classification.py \\
      --checkpoint-path checkpoints/meru_vit_l.pth --train-config configs/train_meru_vit_l.py
  with the modality gap taken out, by the means of each data set itself:
  ... --standardize transductive
  embeddings kept for the next suite, on two GPUs:
  torchrun --nproc-per-node 2 scripts/evaluate.py ... --save-embeddings output/meru_vit_l/embeddings
  two data sets of the config, from another folder:
  ... --only imagenet,cifar10 --num-workers 16 roots.eval=/data/eval
"""
RESULTS = "results.json"


def build_parser() -> argparse.ArgumentParser:
    """Flags of the command, as the field knows them from MERU."""
    parser = config_parser("Measure a trained model on the data sets of a config.", examples=EXAMPLES)
    add_model_arguments(parser)
    parser.add_argument(
        "--standardize",
        metavar="WHAT",
        help="take the mean of each modality out of its embeddings: `transductive`, those of each data set itself "
        "(everything is encoded twice), or a file of scripts/fit_standardization.py",
    )
    parser.add_argument(
        "--shift",
        type=float,
        metavar="DELTA",
        help="instead, move the modalities along the line between these means: closer by DELTA, or apart below 0 "
        "(means: --standardize, default transductive)",
    )
    add_embeddings_arguments(parser)
    parser.add_argument(
        "--redo", action="store_true", help="measure again what the results file already holds"
    )
    parser.add_argument("--only", metavar="NAME,...", help="evaluate only these of the config")
    parser.add_argument(
        "--no-download",
        action="store_true",
        help="fetch no data set; one that is not there is reported missing",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--output-dir", type=Path, metavar="DIR", help=f"folder of {RESULTS} (default: the checkpoint's)"
    )
    place.add_argument("--output", type=Path, metavar="PATH", help="the results file itself, .json")
    parser.add_argument("--batch-size", type=int, metavar="N", help="the same as encoding.batch_size=N")
    parser.add_argument("--num-workers", type=int, metavar="N", help="the same as encoding.num_workers=N")
    return parser


def main(argv: Sequence[str]) -> int:
    """Evaluate one by one; 1 when something was missing or failed, after the rest has run."""
    args = build_parser().parse_args(argv)
    flags = {"batch_size": args.batch_size, "num_workers": args.num_workers}
    given = [f"encoding.{key}={value}" for key, value in flags.items() if value is not None]
    config = load_config(args.config, [*given, *args.overrides], required=("evaluate",))
    if args.no_download and "download" in config:
        config.download = False
    names = _names(config, args.only, args.config)

    from hypvl.cli.torchrun import run_on_ranks

    return run_on_ranks(_run, args, config, names, device=args.device)


def _run(args: argparse.Namespace, config: "DictConfig", names: Sequence[str]) -> int:
    """On every rank the same, but for the files and the screen, which are rank 0's."""
    from hypvl import distributed
    from hypvl.cli.model_loading import load_trained
    from hypvl.cli.standardize import Standardizer
    from hypvl.cli.torchrun import rank_device

    device = rank_device(args.device)
    model, content = load_trained(args.checkpoint_path, args.train_config, device=device)
    standardizer = Standardizer.of(model, args.standardize, shift=args.shift)
    measured = with_store(config, args, model)
    folder = args.checkpoint_path.parent if args.output_dir is None else args.output_dir
    path = folder / RESULTS if args.output is None else args.output
    provenance = _provenance(args, config, device=str(device), iteration=content.get("iteration"))
    file = ResultsFile(path, provenance) if distributed.is_main() else None
    for number, name in enumerate(names, start=1):
        started = time.monotonic()
        digest = settings_digest(_settings(config, name))
        kept = distributed.broadcast_object(file is not None and not args.redo and file.kept(name, digest))
        if kept:
            told = "ok, kept from an earlier run (--redo measures again)"
        else:
            entry = _evaluate(name, measured, model, standardizer)
            if file is not None:
                file.put(name, {**entry, "settings_sha256": digest})
            told = f"{entry['status']}, {time.monotonic() - started:.1f} s"
        if file is not None and (kept or not sys.stderr.isatty()):  # a terminal shows progress bars
            print(f"[{number}/{len(names)}] {name}: {told}", file=sys.stderr, flush=True)
    if file is None:
        return 0
    shown = {name: file.results[name] for name in names}
    _print(shown, title=f"{args.checkpoint_path.name}")
    print(f"{path}\n{path.with_suffix('.csv')}")
    bad = [name for name, result in shown.items() if result["status"] != "ok"]
    if bad:
        print(
            f"error: {len(bad)} of {len(names)} evaluations have no result: {', '.join(bad)}.",
            file=sys.stderr,
        )
    return 1 if bad else 0


def _names(config: "DictConfig", only: str | None, source: str) -> list[str]:
    """Which evaluations to run, in the order of the config."""
    from omegaconf import DictConfig

    known = [str(name) for name in config.evaluate] if isinstance(config.evaluate, DictConfig) else []
    if not known:
        raise ConfigError(
            f"{source}: evaluate is empty or not a mapping; expected a name -> evaluator for each."
        )
    if only is None:
        return known
    wanted = [name.strip() for name in only.split(",")]
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"--only: {name!r} is not in {source} (closest: {near}); expected some of {', '.join(known)}."
            )
    return [name for name in known if name in wanted]


def _settings(config: "DictConfig", name: str) -> Any:
    """What is measured: one entry of the config with its references filled in, as plain data."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from hypvl.config.plain import to_plain

    try:
        settings = OmegaConf.to_container(config.evaluate[name], resolve=True)
    except OmegaConfBaseException:  # it will fail where it is built, and be told there
        settings = config.evaluate[name]
    return to_plain(settings, source=f"evaluate.{name}")


def _evaluate(
    name: str, config: "DictConfig", model: "DualEncoder", standardizer: "Standardizer | None"
) -> dict[str, Any]:
    """One evaluation as an entry of the results file; what goes wrong is part of it and stops no other."""
    from hypvl.config import instantiate
    from hypvl.evaluation.bootstrap import bootstrap_intervals
    from hypvl.evaluation.protocol import MissingDataError

    started = time.monotonic()
    try:
        evaluator = instantiate(config.evaluate[name])
        if standardizer is None:
            result = evaluator(model)
        else:
            with standardizer.applied(evaluator, set_name=name) as applied:
                result = evaluator(model)
            result.meta["standardization"] = applied
        entry: dict[str, Any] = {"status": "ok", "metrics": result.metrics}
        entry["intervals"] = {
            name: list(bounds)
            for name, bounds in bootstrap_intervals(result.samples, strata=result.strata).items()
        }
        entry |= {"items": result.items, "meta": result.meta}
        json.dumps(entry, allow_nan=False)
        entry["seconds"] = round(time.monotonic() - started, 2)
        return entry
    # ValueError and RuntimeError: bad settings, out of memory; OSError: a disk that goes away.
    except (UserError, ValueError, RuntimeError, OSError) as error:
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            traceback.print_exc()
        reason = " ".join(str(error).split())
        return {
            "status": "missing" if isinstance(error, MissingDataError) else "failed",
            "reason": reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}",
            "metrics": {},
        }


def _provenance(
    args: argparse.Namespace, config: "DictConfig", *, device: str, iteration: int | None
) -> dict[str, Any]:
    import hashlib
    from datetime import UTC, datetime

    import hypvl
    from hypvl.config import LazyConfig
    from hypvl.training.provenance import device_name, git_state, package_versions

    with args.checkpoint_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "hypvl": hypvl.__version__,
        **git_state(Path(hypvl.__file__).resolve().parent),
        "packages": package_versions(),
        "device": device,
        "device_name": device_name(),
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": str(args.checkpoint_path),
        "checkpoint_sha256": digest,
        "iteration": iteration,
        "train_config": args.train_config,
        "eval_config": str(args.config),
        "standardize": args.standardize,
        "shift": args.shift,
        "config": LazyConfig.to_yaml(config),
    }


def _print(results: dict[str, dict[str, Any]], *, title: str) -> None:
    from rich.console import Console

    from hypvl.report.tables import result_rows, rich_table

    rows = [row.cells() for row in result_rows(results)]
    if rows:
        Console().print(rich_table(rows, title=title))
    for name, result in results.items():
        if result["status"] != "ok":
            print(f"{name}: {result['status']}: {result['reason']}", file=sys.stderr)
        elif result["meta"].get("unreadable"):
            count, first = (
                result["meta"]["unreadable"],
                result["meta"].get("unreadable_first", ["not named"])[0],
            )
            print(f"{name}: {count} pictures cannot be read; the first: {first}", file=sys.stderr)


def run() -> int:
    """Entry point: errors a user can act on are printed as one sentence."""
    return run_main(main)
