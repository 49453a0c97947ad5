"""Measure a trained model on the data sets of a config."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.checks import count_of
from hypvl.cli.common import (
    config_parser,
    encoding_overrides,
    find_config,
    load_config,
    run_main,
    show,
    user_path,
    user_text,
)
from hypvl.cli.numbers import real, whole
from hypvl.cli.suites import check_encoding, evaluation_names, measure_entry
from hypvl.errors import ConfigError
from hypvl.io.files import file_digest
from hypvl.io.redact import redact_command, redacted

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = """
examples:
  hypvl evaluate --config zero_shot_classification \\
      --checkpoint-path checkpoints/meru_vit_l.pth --train-config meru_vit_l
  without the modality gap, by the means of each data set itself:
  ... --standardize transductive
  half way between a fine-tuned model and the one it started from:
  ... --interpolate-from checkpoints/clip_vit_b.pth --alpha 0.5
  a model of another library, with its own tokenizer and transform:
  hypvl evaluate --config zero_shot_retrieval --model open_clip:ViT-B-32/laion2b_s34b_b79k
  with embeddings saved for the next suite, on two GPUs:
  torchrun --nproc-per-node 2 -m hypvl evaluate ... --save-embeddings output/meru_vit_l/embeddings
  two data sets of the config, from another folder:
  ... --only imagenet,cifar10 --num-workers 16 roots.eval=/data/eval
"""
RESULTS = "results.json"


def build_parser() -> argparse.ArgumentParser:
    """Flags of the command, as the field knows them from MERU."""
    parser = config_parser(__doc__, examples=EXAMPLES)
    parser.add_model_arguments()
    parser.add_argument(
        "--standardize", type=user_text, metavar="WHAT",
        help="subtract the mean of each modality from its embeddings: `transductive`, those of each data set itself "
        "(everything is encoded twice), or a file of hypvl fit-standardization",
    )  # fmt: skip
    parser.add_argument(
        "--shift", type=real(), metavar="DELTA",
        help="instead, move the modalities along the line between these means: closer by DELTA, or apart below 0 "
        "(means: --standardize, default transductive)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default="model", metavar="NAME",
        help="which weights of the checkpoint: `model`, or a teacher of the run, such as an average (EMA)",
    )  # fmt: skip
    parser.add_argument(
        "--interpolate-from", type=user_path, metavar="PATH",
        help="checkpoint that this one was fine-tuned from: evaluate weights between the two, with --alpha (WiSE-FT)",
    )  # fmt: skip
    parser.add_argument(
        "--alpha",
        type=real(least=0, most=1),
        metavar="A",
        help="A times this checkpoint + (1 - A) times the other, in [0, 1]",
    )
    parser.add_embeddings_arguments()
    parser.add_argument(
        "--redo", action="store_true", help="measure again what the results file already holds"
    )
    parser.add_argument("--only", metavar="NAME,...", help="evaluate only these of the config")
    parser.add_argument(
        "--no-download", action="store_true",
        help="download no data set; one that is not there is reported as missing",
    )  # fmt: skip
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--output-dir",
        type=user_path,
        metavar="DIR",
        help=f"folder of {RESULTS} (default: the checkpoint's, or output/NAME of a --model)",
    )
    place.add_argument("--output", type=user_path, help="the results file itself, .json")
    parser.add_argument("--batch-size", type=whole(least=1), help="the same as encoding.batch_size=N")
    parser.add_argument("--num-workers", type=whole(least=0), help="the same as encoding.num_workers=N")
    return parser


def main(argv: Sequence[str]) -> int:
    """Evaluate one by one; 1 if something was missing or failed, after the rest has run."""
    args = build_parser().parse_args(argv)
    if args.model is not None and (args.weights != "model" or args.interpolate_from is not None):
        flag = "--weights" if args.weights != "model" else "--interpolate-from"
        raise ConfigError(f"{flag}: chooses among weights of a checkpoint; leave it out beside --model.")
    config = load_config(
        args.config, [*encoding_overrides(args), *args.overrides], required=("evaluate",), prefix="eval_"
    )
    if args.no_download and "download" in config:
        config.download = False
    check_encoding(config)
    if args.output is not None and args.output.suffix != ".json":
        raise ConfigError(f"--output: got {args.output}; expected the name of a file that ends with .json.")
    only = None if args.only is None else args.only.split(",")
    names = evaluation_names(config, only, asked_by="--only", source=args.config)
    flag = "--save-embeddings" if args.embeddings is None else "--embeddings"
    if (args.save_embeddings or args.embeddings) and (args.standardize is not None or args.shift is not None):
        raise ConfigError(
            f"{flag}: embeddings are stored as the model gives them; leave out --standardize and --shift."
        )

    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return _run(args, config, names)

    from hypvl.launch import launch  # under torchrun

    on_gpu = args.device is None or args.device.startswith("cuda")
    code: int = launch(_run, args, config, names, num_gpus=None if on_gpu else 0)
    return code


def _run(args: argparse.Namespace, config: "DictConfig", names: Sequence[str]) -> int:
    """Evaluate on every rank; rank 0 alone writes files and prints."""
    from hypvl import distributed
    from hypvl.cli.loading import load_chosen, model_name, open_store, pick_device, results_folder, roots_of
    from hypvl.cli.weight_choice import WeightChoice
    from hypvl.evaluation.protocol import EvaluationContext
    from hypvl.evaluation.results import ResultsFile, settings_digest
    from hypvl.report.tables import results_csv

    choice = WeightChoice.of(args)
    device = distributed.device() if distributed.is_initialized() else pick_device(args.device)
    if args.model is None:
        model, content = choice.load(args.checkpoint_path, args.train_config, device=device)
    else:
        model, content = load_chosen(args, device=device)
    remover = None
    if args.standardize is not None or args.shift is not None:
        from hypvl.cli.mean_removal import MeanRemover

        remover = MeanRemover.of(model, args.standardize, shift=args.shift)
    context = EvaluationContext(store=open_store(args, model, roots=roots_of(config)))
    folder = results_folder(args) if args.output_dir is None else args.output_dir
    path = folder / RESULTS if args.output is None else args.output
    provenance = _provenance(args, config, content, device=str(device))
    provenance |= choice.provenance()
    file: ResultsFile | None = None

    def open_file() -> None:
        nonlocal file
        subject = _subject(args, content, provenance) | choice.subject()
        file = ResultsFile(path, subject=subject, provenance=provenance, as_csv=results_csv)
        if file.moved_to is not None:
            show(f"{path}: held another evaluation, kept as {file.moved_to}")

    distributed.from_main(open_file)  # an error ends every rank
    for number, name in enumerate(names, start=1):
        started = time.monotonic()
        settings = _settings(config, name)
        digest = settings_digest(settings)
        kept = distributed.broadcast_object(None if file is None or args.redo else file.reuse(name, digest))
        if kept is not None:
            status = f"ok, kept from {_earlier(kept, provenance)} (--redo measures again)"
        else:
            entry = measure_entry(name, config, model, context, remover=remover)
            if file is not None:
                file.put(name, entry, digest=digest, settings=redacted(settings))
            status = f"{entry['status']}, {time.monotonic() - started:.1f} s"
        # a terminal shows progress bars
        if file is not None and (kept is not None or not sys.stderr.isatty()):
            show(f"[{number}/{len(names)}] {name}: {status}", file=sys.stderr)
    if file is None:
        return 0
    results = file.results()
    shown = {name: results[name] for name in names}
    _print(shown, title=choice.title(model_name(args)))
    show(file.path, file.path.with_suffix(".csv"))
    bad = [name for name, result in shown.items() if result["status"] != "ok"]
    if bad:
        show(
            f"error: {len(bad)} of {len(names)} evaluations have no result: {', '.join(bad)}.",
            file=sys.stderr,
        )
    return 1 if bad else 0


def _settings(config: "DictConfig", name: str) -> Any:
    """One entry of the config with its references resolved, as plain data."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from hypvl.config.plain import to_plain

    try:
        settings = OmegaConf.to_container(config.evaluate[name], resolve=True)
    except OmegaConfBaseException:  # it fails with a message when it is built
        settings = config.evaluate[name]
    return to_plain(settings, source=f"evaluate.{name}")


def _subject(
    args: argparse.Namespace, content: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """What the numbers are about. Runs with equal subjects continue each other, however the paths were typed."""
    means = args.standardize
    if means is not None and Path(means).is_file():
        means = file_digest(Path(means), "sha256")
    return {
        **_model_subject(args, content, provenance),
        "suite": str(find_config(args.config, prefix="eval_").resolve()),
        "standardize": means,
        "shift": args.shift,
    }


def _model_subject(
    args: argparse.Namespace, content: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Digests of the weights and of the definition of the model."""
    from omegaconf import OmegaConf

    from hypvl.cli.loading import config_of
    from hypvl.config.plain import to_plain
    from hypvl.evaluation.results import settings_digest

    if args.model is not None:
        return {"checkpoint_sha256": None, "model_sha256": settings_digest(content["foreign"].subject)}
    config = config_of(content, args.checkpoint_path, args.train_config)
    definition = to_plain(OmegaConf.to_container(config.model, resolve=True), source="model")
    return {
        "checkpoint_sha256": provenance["checkpoint_sha256"],
        "model_sha256": settings_digest(definition),
    }


def _earlier(entry: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The run that measured a retained entry, with its version if that is not the current one."""
    then = entry.get("provenance", {})
    if all(then.get(key) == now.get(key) for key in ("hypvl", "git_commit")):
        return "an earlier run"
    commit = then.get("git_commit")
    return f"a run of hypvl {then.get('hypvl')}" + ("" if commit is None else f" at {commit[:8]}")


def _provenance(
    args: argparse.Namespace, config: "DictConfig", content: dict[str, Any], *, device: str
) -> dict[str, Any]:
    from datetime import UTC, datetime

    from hypvl.cli.loading import chosen_model
    from hypvl.config import LazyConfig
    from hypvl.models.checkpoint_io import checkpoint_digest
    from hypvl.training.provenance import code_version, device_name, package_versions

    return {
        **code_version(),
        "packages": package_versions(),
        "device": device,
        "device_name": device_name(),
        "command": redact_command(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **chosen_model(args, content),
        **({} if args.model else {"checkpoint_sha256": checkpoint_digest(args.checkpoint_path)}),
        "train_config": args.train_config,
        "eval_config": str(args.config),
        "standardize": args.standardize,
        "shift": args.shift,
        "config": LazyConfig.to_shown_yaml(config),
    }


def _print(results: dict[str, dict[str, Any]], *, title: str) -> None:
    from hypvl.report.tables import print_table, result_rows, rich_table

    rows = [row.cells() for row in result_rows(results)]
    if rows:
        print_table(rich_table(rows, title=title))
    for name, result in results.items():
        if result["status"] != "ok":
            show(f"{name}: {result['status']}: {result['reason']}", file=sys.stderr)
        elif result["meta"].get("unreadable"):
            count, first = result["meta"]["unreadable"], result["meta"].get("unreadable_first", ["not named"])
            show(f"{name}: {count_of(count, 'image')} cannot be read; the first: {first[0]}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
