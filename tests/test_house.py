"""The rules of docs/design.md that can be read off the sources: who imports whom, what is imported when."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hypvl"

# Package -> the packages it may import from, besides itself and those of EVERYWHERE. "" is hypvl/__init__.py.
EVERYWHERE = {"", "allowlist", "errors", "checks", "io", "numerics"}
MAY_IMPORT = {
    "": {"api", "models", "data", "negatives", "per_shard", "report"},
    "allowlist": set(),
    "errors": set(),
    "checks": set(),
    "io": set(),
    "numerics": set(),
    "ops": set(),
    "geometry": {"ops"},
    "diagnostics": {"geometry"},
    "distributed": {"rank_notes"},
    "launch": {"distributed", "rank_notes", "units"},
    "rank_notes": set(),
    "config": set(),
    "encoders": {"distributed", "data"},
    "units": set(),
    "data": {"units"},
    "negatives": {"data", "units"},
    "losses": {"geometry", "ops", "distributed"},
    "models": {"encoders", "geometry", "config"},
    "api": {"models", "data", "config", "report"},
    "per_shard": {"data", "embedding", "models", "units"},
    "metrics": set(),
    "datasets": {"data", "metrics", "negatives"},
    "embedding": {"data", "datasets", "distributed", "geometry", "metrics", "units"},
    "evaluation": {"geometry", "data", "distributed", "datasets", "metrics", "embedding", "diagnostics"},
    "training": {
        "models", "losses", "data", "distributed", "launch", "rank_notes", "config", "geometry", "diagnostics",
        "embedding",
    },
    "report": set(),
    "__main__": {"cli"},
    "export": {"data", "datasets", "diagnostics", "embedding", "encoders", "geometry", "models"},
    "cli": {
        "api", "config", "data", "datasets", "diagnostics", "distributed", "embedding", "encoders", "evaluation",
        "export", "geometry", "launch", "losses", "metrics", "models", "negatives", "report", "training", "units",
    },
    # On top of everything: what other programs call. Its modules are commands, too.
    "integrations": {"cli", "data", "datasets", "embedding", "evaluation", "geometry", "models"},
}  # fmt: skip
# Imported inside the function that needs them: slow, optional, or with side effects.
ONLY_WHERE_USED = {
    "matplotlib",
    "wandb",
    "sklearn",
    "tensorboard",
    "tensorboardX",
    "open_clip",
    "transformers",
    "sentence_transformers",
    "mteb",
    "clip_benchmark",
    "ray",
    "lancedb",
    "onnxscript",
    "pyarrow",
}
# Modules that hold classes of another package: who imports them has it.
SUBCLASSES = {
    "hypvl/integrations/sklearn.py": "sklearn",
    "hypvl/integrations/sentence_transformers.py": "sentence_transformers",
}
HEAVY = {"torch", "torchvision", "timm", *ONLY_WHERE_USED}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_of(path): path for path in sources("hypvl")}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports(path: Path, *, top_level: bool = False, types: bool = True) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of every import; ``from a import b`` gives ``a.b``. Relative ones are resolved.

    ``top_level``: only outside functions; ``types``: with those there under ``if TYPE_CHECKING``.
    """
    return tuple(_imports(path, top_level=top_level, types=types))


def _imports(path: Path, *, top_level: bool, types: bool) -> Iterator[tuple[int, str]]:
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in _outside_functions(tree_of(path), types) if top_level else ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            )
            prefix = ".".join(part for part in (base, node.module or "") if part)
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def _outside_functions(node: ast.AST, types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not types and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _outside_functions(child, types)


def package_of(module: str) -> str:
    """``hypvl.geometry.lorentz`` -> ``geometry``; ``hypvl`` and its plain attributes -> the empty name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and ".".join(parts[:2]) in modules() else ""


def test_every_package_is_in_the_table() -> None:
    assert {package_of(module) for module in modules()} - set(MAY_IMPORT) == set()


def test_packages_import_only_what_the_table_allows() -> None:
    wrong = []
    for module, path in modules().items():
        package = package_of(module)
        for line, name in imports(path):
            if name.split(".")[0] != "hypvl":
                continue
            target = package_of(name)
            if target not in {package} | EVERYWHERE | MAY_IMPORT[package]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {package} may not import {target} ({name})")
    assert not wrong, "\n".join(wrong)


def test_hypvl_imports_neither_configs_nor_scripts_nor_tests() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources("hypvl")
        for line, name in imports(path)
        if name.split(".")[0] in {"configs", "scripts", "benchmarks", "tests"}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    graph = {
        module: {_module_in(name) for _, name in imports(path, top_level=True)} - {"", "hypvl", module}
        for module, path in modules().items()
        if module != "hypvl"
    }
    circle = _circle(graph)
    assert circle is None, " -> ".join(circle or ())


def test_no_circles_between_packages() -> None:
    """Wherever the import stands, also in functions and for types: packages, and sub-packages beside single files."""
    for node_of in (package_of, _smallest_package):
        graph: dict[str, set[str]] = {}
        for module, path in modules().items():
            if module != "hypvl":
                targets = {_module_in(name) for _, name in imports(path)} - {"", "hypvl"}
                graph.setdefault(node_of(module), set()).update(node_of(target) for target in targets)
        circle = _circle({node: targets - {node} for node, targets in graph.items()})
        assert circle is None, " -> ".join(circle or ())


@cache
def _smallest_package(module: str) -> str:
    """The package of a module where it holds no other packages, else the module: ``run`` may use what ``hooks`` has."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    parents = {name.rpartition(".")[0] for name, path in modules().items() if path.name == "__init__.py"}
    return module if package in parents else package


@cache
def _module_in(name: str) -> str:
    """The module that a dotted name is, or is an attribute of; the empty name for foreign ones."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph.get(module, ())):
            result = visit(target, [*path, module])
            if result:
                return result
        done.add(module)
        return None

    for module in sorted(graph):
        result = visit(module, [])
        if result:
            return result
    return None


def test_circles_are_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# Protocols: whether an object has certain methods, whatever it is.
CAPABILITIES = {"TileableGeometry", "HasFactors"}


def _type_questions(tree: ast.AST) -> Iterator[ast.expr]:
    """``isinstance(model, ...)``, ``type(self.geometry) is ...``; naming the type in a message is fine."""
    for node in ast.walk(tree):
        calls: list[ast.expr] = []
        if isinstance(node, ast.Call):
            asks = isinstance(node.func, ast.Name) and node.func.id in {"isinstance", "issubclass"}
            calls = [node] if asks else []
        elif isinstance(node, ast.Compare):
            calls = [
                side
                for side in (node.left, *node.comparators)
                if isinstance(side, ast.Call) and ast.unparse(side.func) == "type"
            ]
        for call in calls:
            if isinstance(call, ast.Call) and ast.unparse(call.args[-1]) in CAPABILITIES:
                continue
            subject = ast.unparse(call.args[0]) if isinstance(call, ast.Call) and call.args else ""
            if subject.split(".")[-1] in {"model", "geometry", "scorer"}:
                yield call


def test_nothing_asks_what_the_model_is() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}"
        for path in sources("hypvl")
        for call in _type_questions(tree_of(path))
    ]
    assert not wrong, "ask the geometry what it can do:\n" + "\n".join(wrong)


def test_type_questions_are_found() -> None:
    for code in (
        "isinstance(model, A)",
        "isinstance(self.model, A)",
        "type(model.geometry) is A",
        "A == type(scorer)",
    ):
        assert list(_type_questions(ast.parse(code))), code
    for code in ("isinstance(model_name, str)", "f'{type(model).__name__}'", "isinstance(x, Tensor)"):
        assert not list(_type_questions(ast.parse(code))), code


def test_optional_and_slow_packages_are_imported_where_used() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources("hypvl", "scripts")
        for line, name in imports(path, top_level=True, types=False)
        if name.split(".")[0] in ONLY_WHERE_USED - {SUBCLASSES.get(str(path.relative_to(ROOT)))}
        or name.startswith("torch.utils.tensorboard")
    ]
    assert not wrong, "\n".join(wrong)


def test_files_stay_short() -> None:
    for path in sources("hypvl", "scripts", "benchmarks", "tests"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 500, f"{path.relative_to(ROOT)}: {lines} lines; 500 is the end, split it by idea"
    for path in (ROOT / "configs").glob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 30, (
            f"{path.relative_to(ROOT)}: {lines} lines; a recipe has at most 30, move building blocks to common/"
        )


def _loaded_by(code: str, *arguments: str) -> set[str]:
    """Top-level packages in sys.modules after running ``code`` in a fresh interpreter."""
    report = (
        "import json, sys\nprint('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_hypvl_is_light() -> None:
    assert _loaded_by("import hypvl; hypvl.__version__; dir(hypvl)") & HEAVY == set()


@pytest.mark.parametrize("script", sources("scripts"), ids=lambda path: path.name)
def test_help_of_scripts_is_light(script: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code"
    )
    assert _loaded_by(code, str(script)) & HEAVY == set()


# Where JSON text is read: everything else calls ``parse_json``, which keeps depth within bounds.
READS_JSON = {"hypvl/io/json_text.py", "hypvl/config/reader.py"}


def _json_readers(tree: ast.AST) -> Iterator[ast.AST]:
    """``json.loads``, ``json.load`` and ``json.JSONDecoder``, also imported by name."""
    names = {"loads", "load", "JSONDecoder"}
    for node in ast.walk(tree):
        called = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "json" and node.attr in names
        imported = (
            isinstance(node, ast.ImportFrom)
            and node.module == "json"
            and any(alias.name in names for alias in node.names)
        )
        if called or imported:
            yield node


def test_json_is_read_within_bounds() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in sources("hypvl")
        if str(path.relative_to(ROOT)) not in READS_JSON
        for node in _json_readers(tree_of(path))
    ]
    assert not wrong, "call hypvl.io.json_text.parse_json:\n" + "\n".join(wrong)


def test_json_readers_are_found() -> None:
    for code in ("json.loads(x)", "json.load(f)", "from json import loads", "json.JSONDecoder().decode(x)"):
        assert list(_json_readers(ast.parse(code))), code
    for code in ("json.dumps(x)", "parse_json(x)", "torch.load(x)", "yaml.load(x)"):
        assert not list(_json_readers(ast.parse(code))), code
