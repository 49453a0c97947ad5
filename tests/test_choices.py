"""Every argument that takes one of a few words refuses another one, by name: a slip is never read as a choice.

The test finds such arguments (``Literal`` in an annotation) by itself. A call gets stand-ins for everything else it
needs: words are checked first, with ``hypvl.checks.one_of`` in the first line.
"""

import contextlib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin
from unittest.mock import MagicMock

import pytest

import hypvl
from hypvl.errors import UserError

WRONG = "wrong-word"

# Records that hypvl makes itself, and an abstract method: nobody chooses a word there.
NOT_ARGUMENTS = {
    "hypvl.data.demo.scenes.Scene.__init__",
    "hypvl.negatives.generate.Negatives.__init__",
    "hypvl.negatives.lexicon.Lexicon.__init__",
    "hypvl.datasets.classification.elevater.ElevaterEntry.__init__",
    "hypvl.datasets.catalog.inspection.Finding.__init__",
    "hypvl.evaluation.mean_removal.MeanRecorder.__init__",
    "hypvl.evaluation.traversal.Traversal.__init__",
    "hypvl.geometry.scorers.Scorer.logits",
    "hypvl.diagnostics.verdict.Finding.__init__",
    "hypvl.diagnostics.verdict.Verdict.__init__",
    "hypvl.diagnostics.plane.Plane.__init__",
    "hypvl.report.html.answers.Answer.__init__",
    # scikit-learn's rule: constructors only store, fit() checks (tests/integrations/test_sklearn.py).
    "hypvl.integrations.sklearn.ImageTextEmbedder.__init__",
    "hypvl.integrations.sklearn.ZeroShotClassifier.__init__",
}


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (
        NameError
    ):  # a type that is imported for checking alone: words that stand there are read off the text
        return {
            name: eval(str(text), {"Literal": Literal})
            for name, text in function.__annotations__.items()
            if str(text).startswith("Literal[")
        }


def holds_words(hint: Any) -> bool:
    return get_origin(hint) is Literal or any(holds_words(part) for part in get_args(hint))


def words_of(hint: Any) -> list[Any]:
    """The words of ``Literal[...]``, also ``| None`` and unions of some; none for collections of them."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (typing.Union, types.UnionType):
        return [word for part in get_args(hint) for word in words_of(part)]
    return []


def functions_of(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions, constructors and methods that a module defines; protocols only describe."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
            for method, result in vars(thing).items():
                function = result.__func__ if isinstance(result, classmethod | staticmethod) else result
                public = not method.startswith("_") or method in ("__init__", "__call__")
                if inspect.isfunction(function) and public:
                    yield f"{name}.{method}", function


def arguments() -> dict[str, Callable[..., Any]]:
    """``"hypvl.module.Class.method:argument"`` -> the function."""
    result = {}
    for info in pkgutil.walk_packages(hypvl.__path__, "hypvl."):
        for name, function in functions_of(importlib.import_module(info.name)):
            full, hints = f"{info.name}.{name}", hints_of(function)
            for argument in inspect.signature(function).parameters:
                if holds_words(hints.get(argument)) and full not in NOT_ARGUMENTS:
                    result[f"{full}:{argument}"] = function
    return result


ARGUMENTS = arguments()


def test_the_search_finds_what_there_is() -> None:
    assert len(ARGUMENTS) > 150
    for key in (
        "models.dual_encoder.DualEncoder.scores:query_modality",
        "data.loader.Loader.__init__:start_method",
    ):
        assert f"hypvl.{key}" in ARGUMENTS


@pytest.mark.parametrize("key", ARGUMENTS)
def test_another_word_is_refused_by_name(key: str) -> None:
    name, _, argument = key.rpartition(":")
    function = ARGUMENTS[key]
    hints = hints_of(function)
    given: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            words = words_of(hints.get(parameter.name))
            given[parameter.name] = words[0] if words else MagicMock()
    if "self" in given:
        module, _, cls = name.rpartition(".")[0].rpartition(".")
        kind = getattr(importlib.import_module(module), cls)
        if inspect.isabstract(kind):
            kind = type(kind.__name__, (kind,), dict.fromkeys(kind.__abstractmethods__))
        given["self"] = kind.__new__(kind)
    positional = [given.pop(first) for first in ("self", "cls") if first in given]
    given[argument] = WRONG if words_of(hints[argument]) else (WRONG,)
    with pytest.raises((ValueError, UserError)) as caught:
        result = function(*positional, **given)
        if inspect.isgenerator(result):
            next(result)
        elif isinstance(result, contextlib.AbstractContextManager):
            result.__enter__()
    assert argument in str(caught.value) and WRONG in str(caught.value)
