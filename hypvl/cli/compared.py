"""What is known of one side of ``hypvl diff``: a run's folder, a checkpoint, a config or a results file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from hypvl.checks import closest
from hypvl.cli.common import load_config
from hypvl.config.lazy import SUFFIXES
from hypvl.config.reader import dump_yaml
from hypvl.config.recipes import find_recipe, recipes
from hypvl.errors import ConfigError, DataError
from hypvl.io.json_text import expecting, parse_json, read_object
from hypvl.models.checkpoint_io import WEIGHTS_FILE, load_checkpoint
from hypvl.models.convert import current_name
from hypvl.report.summary import check_entries
from hypvl.training.run_folder import METRICS_NAME
from hypvl.training.state import saved_config

_WEIGHTS = (".pth", ".pt", ".safetensors")
_RUN = ("config.yaml", "provenance.json", METRICS_NAME, "results.json")


@dataclass
class Side:
    """One side; a part is None where it has none."""

    name: str  # as typed
    kind: str  # "run", "checkpoint", "config" or "results"
    config: dict[str, Any] | None = None  # resolved
    provenance: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None  # last line of metrics.jsonl
    results: dict[str, Any] | None = None  # evaluation -> entry
    weights: dict[str, Tensor] | None = field(default=None, repr=False)
    iteration: int | None = None  # of a checkpoint


def read_side(name: str) -> Side:
    """Read what ``name`` is.

    Args:
        name: Folder of a run; checkpoint (.pth, .safetensors, folder of save_pretrained); config file, or the name of a
            recipe; results file.

    Raises:
        ConfigError, CheckpointError, DataError: it is none of these, or cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        if any((path / file).is_file() for file in _RUN):
            return _run(path, name)
        weights = path / WEIGHTS_FILE
        return _checkpoint(weights if weights.is_file() else path, name)
    if path.suffix in _WEIGHTS:
        return _checkpoint(path, name)
    if path.suffix == ".json" and path.is_file():
        results = _results(path)
        if results is not None:
            return Side(name, "results", results=results)
    file = path if path.exists() else find_recipe(name) or path
    if not file.exists() or file.suffix not in SUFFIXES:
        what = "is no side of a comparison"
        if not path.exists():
            names = [each for full in recipes() for each in (full, full.partition("_")[2])]
            near = closest(name, names)
            what = "no folder, file or recipe of hypvl has this name" + (
                f"; the closest recipe is {near}" if near else ""
            )
        raise ConfigError(
            f"{name}: {what}; expected the folder of a run, a checkpoint, a config file, the name of a recipe "
            f"(hypvl recipes lists them), or a results file."
        )
    config: Any = OmegaConf.to_container(load_config(file), resolve=True)
    return Side(name, "config", config=config)


def weight_differences(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Any]:
    """How two state dicts differ: tensors that one lacks, of another shape, of other values, the largest difference."""
    one, two = ({current_name(key): tensor for key, tensor in side.items()} for side in (first, second))
    shared = [key for key in one if key in two]
    shapes = [key for key in shared if one[key].shape != two[key].shape]
    differing, largest = [], 0.0
    for key in shared:
        if key in shapes:
            continue
        a, b = one[key].double(), two[key].double()
        if not torch.equal(a.nan_to_num(), b.nan_to_num()) or not torch.equal(a.isnan(), b.isnan()):
            differing.append(key)
            gap = (a - b).abs()
            largest = (
                max(largest, float(gap[gap.isfinite()].max())) if bool(gap.isfinite().any()) else largest
            )
    return {
        "tensors": len(shared),
        "differing": differing,
        "largest_difference": largest,
        "other_shapes": {key: [list(one[key].shape), list(two[key].shape)] for key in shapes},
        "only_first": [key for key in one if key not in two],
        "only_second": [key for key in two if key not in one],
    }


def _run(folder: Path, name: str) -> Side:
    side = Side(name, "run")
    config, provenance, metrics = (folder / file for file in _RUN[:3])
    if config.is_file():
        side.config = saved_config({"config": config.read_text(encoding="utf-8")})
    if provenance.is_file():
        side.provenance = read_object(provenance, expected="the provenance of a run")
    if metrics.is_file():
        side.metrics = _last_line(metrics)
    side.results = _results_of_folder(folder)
    return side


def _last_line(path: Path) -> dict[str, Any] | None:
    for line in reversed(path.read_text(encoding="utf-8").splitlines()):
        try:
            content = parse_json(line)
        except ValueError:  # half a line of a killed run
            continue
        if isinstance(content, dict):
            return content
    return None


def _results_of_folder(folder: Path) -> dict[str, Any] | None:
    """Evaluations of every suite on the checkpoint that was measured last."""
    results: dict[str, Any] = {}
    model = None
    for path in [folder / "results.json", *sorted(folder.glob("results_*.json"))]:
        if not path.is_file():
            continue
        content = read_object(path, expected="results of evaluations")
        with expecting(path, "results of evaluations"):
            subject = {**content.get("subject", {}), "suite": None}
            check_entries(content.get("results", {}), path)
        model = subject if model is None else model
        if subject == model:
            results = {**content.get("results", {}), **results}
    return results if model is not None else None


def _results(path: Path) -> dict[str, Any] | None:
    try:
        content = read_object(path, expected="results of evaluations")
    except DataError:
        return None  # a config in JSON is read, and refused, as one
    results = content.get("results")
    if not isinstance(results, dict) or "provenance" not in content:
        return None
    check_entries(results, path)
    return results


def _checkpoint(path: Path, name: str) -> Side:
    content = load_checkpoint(path)
    side = Side(name, "checkpoint", weights=content["model"], iteration=content.get("iteration"))
    config, provenance = content.get("config"), content.get("provenance")
    if config is not None:
        side.config = saved_config({"config": config if isinstance(config, str) else dump_yaml(config)})
    if isinstance(provenance, dict) and provenance:
        side.provenance = provenance
    return side


def parts_of(first: Side, second: Side) -> tuple[list[str], dict[str, str]]:
    """The parts that both sides have, and part -> why it is not compared for those that only one has.

    Raises:
        ConfigError: when they have no part in common.
    """
    both, lacking = [], {}
    for part in ("config", "provenance", "metrics", "results", "weights"):
        absent = [side for side in (first, second) if getattr(side, part) is None]
        if not absent:
            both.append(part)
        elif len(absent) == 1:
            lacking[part] = f"{absent[0].name} ({absent[0].kind}) has none"
    if not both:
        raise ConfigError(
            f"{first.name} ({first.kind}) and {second.name} ({second.kind}) have nothing in common to compare; "
            "expected two runs, two checkpoints, two configs or two results files."
        )
    return both, lacking
