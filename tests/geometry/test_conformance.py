"""Every concrete geometry and scorer has a contract test, wherever it is defined in hypvl.geometry."""

import importlib
import inspect
import pkgutil

import hypvl.geometry
import tests.geometry
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Scorer
from hypvl.geometry.sphere import Sphere
from tests.geometry.contract import GeometryContract, ScorerContract


def concrete(kind: type) -> set[type]:
    """Subclasses in hypvl.geometry, abstract ones passed through."""
    for module in pkgutil.iter_modules(hypvl.geometry.__path__, "hypvl.geometry."):
        importlib.import_module(module.name)
    result, queue = set(), [kind]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        ours = cls is not kind and cls.__module__.startswith("hypvl.geometry.")
        if ours and not inspect.isabstract(cls):
            result.add(cls)
    return result


def built_by(contract: type) -> set[type]:
    """Types that the contract tests in tests/geometry build."""
    for module in pkgutil.iter_modules(tests.geometry.__path__, "tests.geometry."):
        if module.name.split(".")[-1].startswith("test_"):
            importlib.import_module(module.name)
    built: set[type] = set()
    for cls in contract.__subclasses__():
        result = cls().build()
        built |= {type(part) for part in (result if isinstance(result, tuple) else (result,))}
    return built


def test_every_geometry_has_a_contract_test() -> None:
    missing = sorted(cls.__name__ for cls in concrete(Geometry) - built_by(GeometryContract))
    assert not missing, (
        f"{missing}: derive from GeometryContract in a tests/geometry/test_*.py, see docs/extending"
    )


def test_every_scorer_has_a_contract_test() -> None:
    missing = sorted(cls.__name__ for cls in concrete(Scorer) - built_by(ScorerContract))
    assert not missing, f"{missing}: derive from ScorerContract in a tests/geometry/test_*.py"


def test_a_class_without_one_is_found() -> None:
    undone = type("Undone", (Sphere,), {"__module__": "hypvl.geometry.undone"})
    try:
        assert concrete(Geometry) - built_by(GeometryContract) == {undone}
    finally:
        undone.__module__ = __name__  # Python remembers subclasses: leave none behind that counts
