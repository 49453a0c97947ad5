"""The examples in docstrings run, and everything that users call from Python has one."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hypvl

PACKAGE = Path(hypvl.__file__).resolve().parent
SKIP = "# doctest: +SKIP"
# Examples that may be left out: function -> lines at most. Three download or upload, the others read large files.
SKIPPED = {
    "from_pretrained": 2,
    "load_foreign": 2,
    "push_to_hub": 1,
    "encode_shard": 1,
    "export_onnx": 3,
    "grit_shard": 1,
}
NEEDS = {"hypvl.integrations.sentence_transformers": "sentence_transformers"}
#: Packages whose public functions are all called from Python.
WHOLE = (
    "hypvl.diagnostics",
    "hypvl.metrics",
    "hypvl.geometry.euclidean",
    "hypvl.geometry.lorentz",
    "hypvl.geometry.sphere",
)
CLASSES = {
    "hypvl.api": ["ImageTransform"],
    "hypvl.geometry.euclidean": ["Euclidean"],
    "hypvl.geometry.lorentz": ["Lorentz"],
    "hypvl.geometry.product": ["Product"],
    "hypvl.geometry.scorers": ["Cosine", "ExteriorAngle", "NegativeDistance"],
    "hypvl.geometry.sphere": ["Sphere"],
    "hypvl.integrations.sklearn": ["ImageTextEmbedder", "ZeroShotClassifier"],
    "hypvl.metrics.hierarchy": ["IsA"],
}


def modules(*names: str) -> Iterator[str]:
    for name in names:
        yield name
        path = getattr(importlib.import_module(name), "__path__", None)
        if path is not None:
            yield from (info.name for info in pkgutil.walk_packages(path, f"{name}."))


def with_examples() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", with_examples())
def test_examples_of_a_module_run(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    torch.manual_seed(0)
    report: list[str] = []
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def public_functions() -> Iterator[tuple[str, Any]]:
    for name in hypvl.__all__:
        if name != "__version__":
            yield f"hypvl.{name}", getattr(hypvl, name)
    for module in modules(*WHOLE):
        yield from functions_of(module)
    for module in modules("hypvl.losses"):  # the pure functions: tensors in, tensors out
        for name, function in functions_of(module):
            hints = [p.annotation for p in inspect.signature(function).parameters.values()]
            if (
                hints
                and hints[0] in (torch.Tensor, torch.Tensor | None)
                and returned(function) is torch.Tensor
            ):
                yield name, function
    for module, classes in CLASSES.items():
        yield from ((f"{module}.{name}", getattr(importlib.import_module(module), name)) for name in classes)


def functions_of(module: str) -> Iterator[tuple[str, Any]]:
    for name, thing in vars(importlib.import_module(module)).items():
        if inspect.isfunction(thing) and not name.startswith("_") and thing.__module__ == module:
            yield f"{module}.{name}", thing


def returned(function: Any) -> Any:
    return inspect.signature(function).return_annotation


PUBLIC = dict(public_functions())


def test_the_search_finds_what_there_is() -> None:
    assert len(PUBLIC) > 150
    for name in ("hypvl.create_model", "hypvl.geometry.lorentz.dist", "hypvl.losses.sigmoid.sigmoid_loss"):
        assert name in PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_what_users_call_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(PUBLIC[name]) or ""), (
        f"{name}: add an `Example:` with a line or two that run, and what they print."
    )


def test_only_downloads_are_skipped() -> None:
    found: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if SKIP in text else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                count = len(re.findall(re.escape(SKIP), ast.get_docstring(node) or ""))
                if count:
                    found[node.name] = found.get(node.name, 0) + count
    assert found, "the search finds none"
    more = {name: count for name, count in found.items() if count > SKIPPED.get(name, 0)}
    assert not more, f"{more}: examples that are not run; let them run, or list them in SKIPPED"
