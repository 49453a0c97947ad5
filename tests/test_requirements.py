"""Dependencies: what is imported is declared, what is declared is pinned, and the pins are within the ranges."""

import ast
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_house import ROOT, imports, sources

# Distribution of a package whose import has another name.
DISTRIBUTION = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "xdist": "pytest-xdist",
    "yaml": "pyyaml",
}


def _ranges() -> dict[str, Requirement]:
    """Requirements that setup.py names, read from its text."""
    result = {}
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.match(r"^[\w.-]+>=\d", node.value)
        ):
            requirement = Requirement(node.value)
            result[canonicalize_name(requirement.name)] = requirement
    return result


def _pins(file: str) -> dict[str, Version]:
    pins = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            requirement = Requirement(text)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{file}: {text} is not an exact pin"
            pins[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pins


@pytest.mark.parametrize("folder", ["hypvl", "scripts", "configs", "benchmarks", "tests"])
def test_what_is_imported_is_declared(folder: str) -> None:
    declared = {*_ranges(), "setuptools"}
    own = {"hypvl", "configs", "scripts", "benchmarks", "tests"}
    wrong = []
    for path in sources(folder):
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in own or top in sys.stdlib_module_names:
                continue
            if canonicalize_name(DISTRIBUTION.get(top, top)) not in declared:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name} is not in setup.py")
    assert not wrong, "\n".join(wrong)


def test_pins_are_within_the_ranges_and_cover_them() -> None:
    pins = _pins("requirements.txt")
    for name, requirement in _ranges().items():
        assert name in pins, f"requirements.txt: no pin of {requirement}"
        assert requirement.specifier.contains(pins[name], prereleases=True), (
            f"{requirement}: pinned to {pins[name]}"
        )


def test_constraints_hold_the_same_pins() -> None:
    constraints = _pins("constraints.txt")
    for name, version in _pins("requirements.txt").items():
        assert constraints[name] == version, f"constraints.txt: {name}; run `make constraints`"


def test_torch_and_torchvision_are_the_pair_that_works() -> None:
    pins = _pins("requirements.txt")
    assert (str(pins["torch"]), str(pins["torchvision"])) == ("2.11.0", "0.26.0")
    assert str(_ranges()["torch"].specifier) in {">=2.10,<3", "<3,>=2.10"}


def test_the_smoke_tests_of_the_lower_bounds_exist() -> None:
    text = (ROOT / ".ci" / "lower_bounds").read_text(encoding="utf-8")
    places = re.findall(r"(?<!\S)tests/\S+", text)
    assert len(places) > 20 and [place for place in places if not (ROOT / place).exists()] == []
