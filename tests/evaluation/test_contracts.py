"""Every concrete evaluator has a contract test."""

import importlib
import inspect
import pkgutil

import hypvl.evaluation
import tests.evaluation
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract


def _modules(package: object) -> list[object]:
    infos = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")  # type: ignore[attr-defined]
    return [importlib.import_module(info.name) for info in infos]


def uncovered(
    evaluators: set[type[Evaluator]], contracts: set[type[EvaluatorContract]]
) -> set[type[Evaluator]]:
    return evaluators - {contract.evaluator_class for contract in contracts}


def test_every_concrete_evaluator_has_a_contract_test() -> None:
    evaluators = {
        value
        for module in _modules(hypvl.evaluation)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Evaluator) and not inspect.isabstract(value)
    }
    contracts = {
        value
        for module in _modules(tests.evaluation)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, EvaluatorContract) and name.startswith("Test")
    }
    assert len(evaluators) >= 2
    assert not uncovered(evaluators, contracts)


def test_an_evaluator_without_one_is_found() -> None:
    class Lonely(Evaluator):
        main_metric = "x"

        def __call__(self, model: object) -> object:  # type: ignore[override]
            return None

    assert uncovered({Lonely}, set()) == {Lonely}
