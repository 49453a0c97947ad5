import importlib
import pkgutil

import pytest
import torch

import hypvl.losses
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from tests.losses.contract import LossContract
from tests.losses.test_contrastive import TestContrastiveOnHyperboloid as _OnHyperboloid
from tests.losses.toy import context, random_features


class Squares(LossTerm):
    """Mean square of the image features, counting its updates."""

    needs = frozenset({IMAGE})

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, ctx: PairContext) -> torch.Tensor:
        return ctx.features(IMAGE).square().mean()

    def update_(self, ctx: PairContext) -> None:
        self.updates += 1


def test_view_parses_shorthand_and_full_form() -> None:
    assert View.parse("image") == IMAGE == View("image", "image", "student", True)
    assert View.parse("text:negative_text@teacher") == View("text", "negative_text", "teacher")
    assert View.parse(TEXT) is TEXT
    with pytest.raises(ValueError, match="'sound'"):
        View.parse("sound")


def test_objective_sums_weighted_terms_and_reports_them_unweighted() -> None:
    model = _OnHyperboloid().model()
    rows = {IMAGE: torch.full((2, 2), 2.0, dtype=torch.float64), TEXT: random_features(2, 2)}
    objective = Objective({"a": Squares(), "b": Squares()}, weights={"b": 0.25})
    output = objective(context(model, rows))
    assert output.total.item() == pytest.approx(4.0 + 0.25 * 4.0)
    assert {k: v.item() for k, v in output.terms.items()} == {"a": 4.0, "b": 4.0}
    assert not output.terms["a"].requires_grad


def test_objective_needs_every_view_once_and_updates_its_terms() -> None:
    objective = Objective({"contrastive": Contrastive(), "squares": Squares()})
    assert objective.needs == {IMAGE, TEXT}
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    objective.update_(context(_OnHyperboloid().model(), rows))
    assert objective.state_dict()["terms.squares.updates"].item() == 1


def test_objective_refuses_no_terms_and_weights_without_a_term() -> None:
    with pytest.raises(ValueError, match="terms: got none"):
        Objective({})
    with pytest.raises(ValueError, match=r"\['entailmnt'\] name no term"):
        Objective({"entailment": Squares()}, weights={"entailmnt": 1.0})


def test_undeclared_view_is_named() -> None:
    ctx = context(_OnHyperboloid().model(), {IMAGE: random_features(2)})
    with pytest.raises(KeyError, match="text:text@student: not encoded"):
        ctx.features(TEXT)


def test_each_view_is_lifted_once() -> None:
    ctx = context(_OnHyperboloid().model(), {IMAGE: random_features(2)})
    assert ctx.embeddings(IMAGE) is ctx.embeddings(IMAGE)
    assert ctx.targets(IMAGE).tolist() == [0, 1]


def test_every_loss_term_has_a_contract_test() -> None:
    """A concrete LossTerm in hypvl.losses without a LossContract test fails here."""
    terms: set[type] = set()
    for info in pkgutil.iter_modules(hypvl.losses.__path__):
        module = importlib.import_module(f"hypvl.losses.{info.name}")
        terms |= {
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, LossTerm) and value.__module__ == module.__name__
        }
        if any(t.__module__ == module.__name__ and t is not LossTerm for t in terms):
            importlib.import_module(f"tests.losses.test_{info.name}")
    covered = {type(test().make()) for test in LossContract.__subclasses__()}
    assert terms - {LossTerm} <= covered, f"no contract test for {terms - {LossTerm} - covered}"
