"""Check this installation, data sets, shards, checkpoints and runs, and say what to do about what is wrong."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.checks import count_of
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
from hypvl.errors import ConfigError, UserError
from hypvl.io.progress import terminal_bar

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hypvl.datasets.catalog.inspection import Finding

#: Settings of evaluators that name no data.
_NO_DATA = ("encoding", "tokenizer", "prompts", "ensemble")
_EXAMPLES = """
examples:
  hypvl doctor
  hypvl doctor --config zero_shot_classification roots.eval=/data/eval
  hypvl doctor --config elevater --only dtd,gtsrb --all-images
  hypvl doctor --config zero_shot_classification --download
  hypvl doctor --run output/meru_vit_b
  hypvl doctor --shards 'datasets/redcaps/*.tar' --checkpoint-path checkpoints/meru_vit_l.pth --json
"""


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(__doc__, examples=_EXAMPLES)
    parser.add_argument(
        "--config", type=user_text, action="append",
        help="evaluation suite whose data are checked, may be given again (default: all in ./configs, else all that "
        "come with hypvl, for information: what is missing is then no error)",
    )  # fmt: skip
    parser.add_argument("--only", metavar="NAME,...", help="check only these evaluations of the suites")
    parser.add_argument("--download", action="store_true", help="fetch missing data where a source is known")
    parser.add_argument(
        "--images", type=whole(least=1), default=8, help="images to decode of each set, or TAR"
    )
    parser.add_argument("--all-images", action="store_true", help="decode every image")
    # Names that the two had before.
    parser.add_argument(
        "--pictures", type=whole(least=1), dest="images", help=argparse.SUPPRESS, default=argparse.SUPPRESS
    )
    parser.add_argument("--all-pictures", action="store_true", dest="all_images", help=argparse.SUPPRESS)
    parser.add_argument(
        "--shards", action="append", default=[], metavar="GLOB", help="TAR files: paths, globs, brace lists, URLs"
    )  # fmt: skip
    parser.add_argument("--checkpoint-path", type=user_path, help="checkpoint to read")
    parser.add_argument(
        "--run", type=user_path, metavar="FOLDER",
        help="folder of a run: is it alive, how far is it, which checkpoint is good, how to go on",
    )  # fmt: skip
    parser.add_argument(
        "--train-config", type=user_text, help="config or name of its model, to put the weights into"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="changes to the suites: key=value")
    return parser


def main(argv: Sequence[str]) -> int:
    """Check and report; 1 if something that the user asked for is missing or broken."""
    args = build_parser().parse_args(argv)
    look_at = None if args.all_images else args.images
    environment = check_environment()
    asked_for_others = bool(args.shards or args.checkpoint_path or args.run)
    suites = _suites(args) if args.config or not asked_for_others else {}
    findings: dict[str, list[Finding]] = {source: [] for source in suites}
    # A download shows bars of its own.
    with terminal_bar("data sets", shown=not args.download) as move_bar:
        for source, config in suites.items():
            for finding in check_suite(config, only=args.only, look_at=look_at):
                findings[source].append(finding)
                move_bar(sum(map(len, findings.values())), text=f"data sets: {finding.name}")
    if args.only is not None and not any(findings.values()):
        raise ConfigError(f"--only: none of {args.only} is in {', '.join(suites) or 'a suite'}.")
    shards = [dataclasses.asdict(report) for glob in args.shards for report in _shards(glob, look_at)]
    checkpoint = (
        None if args.checkpoint_path is None else check_checkpoint(args.checkpoint_path, args.train_config)
    )
    broken = [p["name"] for p in environment["packages"] if p["problem"] and p["required"]]
    for source, result in findings.items():
        # Without --config a missing set is not an error; a damaged one is.
        bad = ("missing", "incomplete", "damaged") if args.config else ("damaged",)
        broken += [f"{Path(source).stem}: {finding.name}" for finding in result if finding.status in bad]
    broken += [report["place"] for report in shards if report["problems"]]
    if checkpoint is not None and not checkpoint["ok"]:
        broken.append(checkpoint["path"])
    run = None if args.run is None else _run_status(args.run)
    if run is not None and run["problem"] is not None:
        broken.append(run["folder"])
    report = {
        "ok": not broken,
        "broken": broken,
        "environment": environment,
        "suites": {source: [dataclasses.asdict(f) for f in result] for source, result in findings.items()},
        "shards": shards,
        "checkpoint": checkpoint,
        "run": run,
    }
    if args.json:
        show_json(report)
    else:
        _print(report, asked=args.config is not None)
    return 1 if broken else 0


def requirements() -> list[str]:
    """What hypvl needs, one requirement a line: of the installation, else of setup.py beside the package (no extras).

    Raises:
        UserError: hypvl is neither installed nor run from its folder.
    """
    import ast
    import importlib.metadata

    import hypvl

    try:
        return importlib.metadata.requires("hypvl") or []
    except importlib.metadata.PackageNotFoundError:
        path = Path(hypvl.__file__).resolve().parents[1] / "setup.py"
    if not path.is_file():
        raise UserError(
            f"hypvl: neither installed nor beside {path}; expected one of them: pip install hypvl."
        )
    # Read, not run: setuptools need not be there.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            return [str(text) for text in ast.literal_eval(node.value)]
    raise UserError(
        f"{path}: has no install_requires=[...]; expected the list of what hypvl needs. Add it back."
    )


def check_environment() -> dict[str, Any]:
    """Versions, devices, and whether what setup.py asks for is installed."""
    import importlib.metadata
    import platform
    import re

    import torch
    from packaging.requirements import Requirement

    from hypvl.training.provenance import code_version, device_name

    packages = []
    for text in requirements():
        requirement = Requirement(text)
        extra = re.search(r'extra == "([^"]+)"', str(requirement.marker or ""))
        try:
            version: str | None = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        problem = None
        if version is None:
            problem = f"not installed: pip install '{requirement.name}{requirement.specifier}'"
        elif not requirement.specifier.contains(version, prereleases=True):
            problem = f"is {version}; expected {requirement.specifier}"
        packages.append(
            {
                "name": requirement.name,
                "version": version,
                "problem": problem,
                "required": extra is None,
                "extra": None if extra is None else extra[1],
            }
        )
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in devices]
    return {
        **code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": device_name() if not gpus else platform.processor() or platform.machine(),
        "cuda": torch.version.cuda if gpus else None,
        "gpus": gpus,
        "packages": packages,
    }


def _suites(args: argparse.Namespace) -> dict[str, "DictConfig"]:
    paths = args.config
    if paths is None:
        from hypvl.config.recipes import recipe_folders

        found = (sorted(folder.glob("eval_*.py")) for folder in recipe_folders())
        paths = [str(path) for path in next(filter(None, found), [])]
        if not paths:
            show("note: no suites in ./configs, and none are installed; give --config.", file=sys.stderr)
        if args.overrides:
            raise ConfigError("overrides: need --config, since suites have different keys.")
    suites = {
        path: load_config(path, args.overrides, required=("evaluate",), prefix="eval_") for path in paths
    }
    if args.download and not any("download" in config for config in suites.values()):
        raise ConfigError(
            f"--download: no source is known for the data of {', '.join(suites) or 'no suite'}."
        )
    for config in suites.values():
        if "download" in config:
            config.download = args.download
    return suites


def check_suite(config: "DictConfig", *, only: str | None, look_at: int | None) -> Iterator["Finding"]:
    """Build each data set of a suite once and decode some of its images (``look_at``; None = all)."""
    from omegaconf import OmegaConf

    wanted = None if only is None else {name.strip() for name in only.split(",")}
    checked = set()
    for name in map(str, config.evaluate):
        if wanted is not None and name not in wanted:
            continue
        entry: Any = OmegaConf.to_container(config.evaluate[name], resolve=True)
        nodes = _data_nodes([value for key, value in entry.items() if key not in _NO_DATA])
        for node in nodes or [entry]:
            what = json.dumps(node, sort_keys=True, default=str)
            if what in checked:
                continue
            checked.add(what)
            finding = _check(_name_of(node, name), node, look_at)
            # Something that is built but has no images is a setting, not data; except the evaluator itself.
            if node is entry or not finding.ok or finding.items is not None:
                yield finding


def _name_of(node: Any, entry: str) -> str:
    """``"dtd test"`` for a set by name and split, else the name of the evaluation."""
    name = node.get("name")
    return f"{name} {node.get('split') or 'test'}" if isinstance(name, str) else entry


def _check(name: str, node: Any, look_at: int | None) -> "Finding":
    from hypvl.config import instantiate
    from hypvl.datasets.catalog.inspection import inspect_error, inspect_set

    try:
        built = instantiate(node)
    except (UserError, ValueError) as error:
        return inspect_error(name, error)
    return inspect_set(name, built, look_at=look_at, expected=_expected(node))


def _data_nodes(value: Any) -> list[Any]:
    """The outermost mappings with a target in a value."""
    if isinstance(value, dict) and "_target_" in value:
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [node for item in inner for node in _data_nodes(item)]


def _expected(node: Any) -> int | None:
    """How many images a set of the catalog should have in its published layout; None if unknown."""
    from hypvl.datasets.classification.by_name import expected_size
    from hypvl.datasets.classification.webdataset import is_url

    if not str(node.get("_target_", "")).endswith(".classification_set"):
        return None
    root = str(node.get("root", "./datasets/eval"))
    if is_url(root) or (Path(root) / node["name"] / "classnames.txt").is_file():
        return None
    return expected_size(node["name"], node.get("split", "test"))


def _shards(glob: str, look_at: int | None) -> list[Any]:
    from hypvl.data.shard_check import ShardReport, check_shards
    from hypvl.errors import DataError

    try:
        return check_shards(glob, look_at=look_at)
    except DataError as error:
        return [ShardReport(glob, problems=[str(error)])]


def check_checkpoint(path: Path, train_config: str | None) -> dict[str, Any]:
    """Whether a checkpoint can be read, and fits its model if the model is known."""
    import torch

    from hypvl.cli.loading import load_trained
    from hypvl.models.checkpoint_io import load_checkpoint

    report: dict[str, Any] = {"path": str(path), "ok": False, "problem": None}
    try:
        content = load_checkpoint(path)
        tensors = content["model"]
        bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        report |= {
            "keys": sorted(map(str, content)),
            "iteration": content.get("iteration"),
            "tensors": len(tensors),
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "not_finite": bad,
        }
        if bad:
            report["problem"] = (
                f"{path}: {len(bad)} tensors are not finite, such as {bad[0]}; use an earlier one."
            )
        if train_config is not None or "config" in content:
            load_trained(path, train_config, device=torch.device("cpu"))
            report["fits"] = train_config or "the config inside"
    except UserError as error:
        report["problem"] = str(error)
    report["ok"] = report["problem"] is None
    return report


def _run_status(folder: Path) -> dict[str, Any]:
    from hypvl.training.run_status import WATCH, run_status

    if not folder.is_dir():
        raise ConfigError(f"--run: {folder} is no folder; expected that of a training run.")
    return run_status(folder, watch=WATCH)


def _print(report: dict[str, Any], *, asked: bool) -> None:
    """What a person reads; of suites that nobody ``asked`` for, those without any data share a line."""
    from hypvl.report.tables import print_table, rich_table

    environment = report["environment"]
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in environment["gpus"]) or "none"
    show(
        f"hypvl {environment['hypvl']} (commit {environment['git_commit']}), Python {environment['python']}, "
        f"GPUs: {gpus}, CUDA {environment['cuda']}"
    )
    installed = (f"{p['name']} {p['version']}" for p in environment["packages"] if p["version"])
    show(", ".join(dict.fromkeys(installed)))  # an extra may ask for one again
    for package in environment["packages"]:
        if package["problem"]:
            role = "needed" if package["required"] else f"only for the extra {package['extra']}"
            show(f"  {package['name']}: {package['problem']} ({role})")
    absent = {}
    for source, result in report["suites"].items():
        if not asked and result and all(finding["status"] == "missing" for finding in result):
            absent[Path(source).stem.removeprefix("eval_")] = len(result)
            continue
        rows = [
            (f["name"], f["status"], "" if f["items"] is None else f"{f['items']:,}", str(f["looked_at"]))
            for f in result
        ]
        print_table(rich_table(rows, header=("data", "status", "images", "decoded"), title=source))
        for finding in result:
            if finding["detail"]:
                show(f"  {finding['name']}: {finding['status']}: {finding['detail']}")
    if absent:
        counts = ", ".join(f"{name} ({number})" for name, number in absent.items())
        show(
            f"suites of which no data set is here, with their number of sets: {counts}",
            f"  which files are missing, and where they come from: hypvl doctor --config {next(iter(absent))}",
        )
    for shard in report["shards"]:
        kinds = ", ".join(f"{count} .{name}" for name, count in sorted(shard["extensions"].items()))
        state = "ok" if not shard["problems"] else "damaged"
        show(
            f"{shard['place']}: {state}, {count_of(shard['samples'], 'sample')} ({kinds}), {shard['looked_at']} decoded"
        )
        for problem in shard["problems"]:
            show(f"  {problem}")
    checkpoint = report["checkpoint"]
    if checkpoint is not None and checkpoint["ok"]:
        fits = f", fits {checkpoint['fits']}" if "fits" in checkpoint else ""
        show(f"{checkpoint['path']}: ok, {checkpoint['parameters']:,} parameters{fits}")
    elif checkpoint is not None:
        show(f"{checkpoint['path']}: {checkpoint['problem']}")
    run = report["run"]
    if run is not None:
        show(
            f"{run['folder']}: {run['state']}, iteration {run['iteration']} of {run['num_iterations']}",
            f"  last good checkpoint: {run['checkpoint'] or 'none'}",
            f"  to go on: {run['resume']}",
        )
        if run["problem"] is not None:
            show(f"  {run['problem']}")
    if report["broken"]:
        show(f"error: {len(report['broken'])} broken: {', '.join(report['broken'])}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
