"""The signatures of the public API are those of tests/api_signatures.txt: whoever changes one means it, and says so.

``python -m tests.test_api_signatures`` writes the file anew. They are read from the source, so that they do not depend
on the version of Python.
"""

import ast
import difflib
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import hypvl

SNAPSHOT = Path(__file__).with_name("api_signatures.txt")
#: The contracts of docs/design.md: what code outside hypvl subclasses, implements or is handed.
CONTRACTS = (
    "hypvl.data.sample.PairDataset",
    "hypvl.datasets.protocol.ClassificationSet",
    "hypvl.datasets.protocol.ImageSource",
    "hypvl.datasets.protocol.RetrievalSet",
    "hypvl.embedding.protocol.EvaluableModel",
    "hypvl.embedding.protocol.Tokenizer",
    "hypvl.evaluation.protocol.EvaluationContext",
    "hypvl.evaluation.protocol.EvaluationResult",
    "hypvl.evaluation.protocol.Evaluator",
    "hypvl.geometry.base.Cones",
    "hypvl.geometry.base.Geometry",
    "hypvl.geometry.scorers.Scorer",
    "hypvl.losses.base.LossOutput",
    "hypvl.losses.base.LossTerm",
    "hypvl.losses.base.Objective",
    "hypvl.losses.base.PairContext",
    "hypvl.losses.info_nce.info_nce",
    "hypvl.models.dual_encoder.DualEncoder",
    "hypvl.ops.tiled_logsumexp.kernels.TileableGeometry",
    "hypvl.training.step.Learner",
    "hypvl.training.step.forward_backward",
    "hypvl.training.step.optimizer_step",
    "hypvl.training.teachers.Teacher",
)
_SPECIAL = {"__init__", "__call__", "__len__", "__getitem__"}
_COMMAND = "python -m tests.test_api_signatures"


def snapshot() -> str:
    """All signatures, a line each; members of a class are indented."""
    names = {f"hypvl.{name}": getattr(hypvl, name) for name in hypvl.__all__ if name != "__version__"}
    for name in CONTRACTS:
        module, _, attribute = name.rpartition(".")
        names[name] = getattr(importlib.import_module(module), attribute)
    return "".join(f"{line}\n" for name, value in names.items() for line in signature(name, value))


def signature(name: str, value: object) -> Iterator[str]:
    """The lines of a function, or of a class with its public members."""
    node = _definition(value.__module__, value.__qualname__)  # type: ignore[attr-defined]
    if not isinstance(node, ast.ClassDef):
        yield f"{name}{_arguments(node)}"
        return
    yield f"{name}({', '.join(map(ast.unparse, node.bases))})"
    for member in node.body:
        if isinstance(member, ast.AnnAssign):
            if not ast.unparse(member.target).startswith("_"):
                yield f"    {ast.unparse(member)}"
        elif isinstance(member, ast.FunctionDef) and (
            not member.name.startswith("_") or member.name in _SPECIAL
        ):
            marks = "".join(f"@{ast.unparse(mark)} " for mark in member.decorator_list)
            yield f"    {marks}{member.name}{_arguments(member)}"


def _arguments(node: ast.FunctionDef) -> str:
    result = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"({ast.unparse(node.args)}){result}"


def _definition(module: str, name: str) -> ast.FunctionDef | ast.ClassDef:
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise AssertionError(f"{module}.{name}: no function or class at the top level of its module")


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def test_the_public_signatures_are_the_recorded_ones() -> None:
    recorded, now = SNAPSHOT.read_text(encoding="utf-8"), snapshot()
    lines = difflib.unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", n=0, lineterm="")
    difference = "\n".join(lines)
    assert not difference, (
        f"The public API has changed:\n{difference}\n\nIf that is meant: run `{_COMMAND}`, commit {SNAPSHOT.name}, and "
        "add a line to CHANGELOG.md under [Unreleased] (under Changed or Removed, what the caller has to do)."
    )


def test_a_changed_argument_is_seen() -> None:
    (line,) = signature("hypvl.losses.info_nce.info_nce", _function("hypvl.losses.info_nce", "info_nce"))
    assert "smoothing: float=0.0" in line and line in snapshot()


def _function(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    print(SNAPSHOT)
