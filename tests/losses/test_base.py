import importlib
import inspect
import pkgutil

import pytest
import torch

import hypvl.losses
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from tests.losses.contract import LossContract
from tests.losses.test_contrastive import TestContrastiveOnHyperboloid as _OnHyperboloid
from tests.losses.test_distributed import below
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


class Half(LossTerm):
    """Mean square of the first half of the image features; asks for texts, too, and looks at none."""

    needs = frozenset({IMAGE, TEXT})

    def forward(self, ctx: PairContext) -> torch.Tensor:
        return ctx.features(IMAGE)[: len(ctx.features(IMAGE)) // 2].square().mean()


@pytest.mark.parametrize("view", [IMAGE, TEXT])
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_what_no_term_looks_at_makes_the_total_and_every_gradient_nan(view: View, weight: float) -> None:
    model, objective = (
        _OnHyperboloid().model(),
        Objective({"a": Squares(), "b": Half()}, weights={"b": weight}),
    )
    rows = {IMAGE: random_features(4).requires_grad_(), TEXT: random_features(4, seed=1)}
    whole = objective(context(model, rows))
    assert whole.total.item() == float(whole.terms["a"] + weight * whole.terms["b"])  # to the last bit
    broken = rows[view].detach().clone()
    broken[3, 0] = torch.nan
    output = objective(
        context(model, {**rows, view: broken} if view == TEXT else {**rows, view: broken.requires_grad_()})
    )
    assert output.total.isnan()
    output.total.backward()
    grad = (broken if view == IMAGE else rows[IMAGE]).grad
    assert grad is not None and grad.isnan().all()


def test_objective_needs_every_view_once_and_updates_its_terms() -> None:
    objective = Objective({"contrastive": Contrastive(), "squares": Squares()})
    assert objective.needs == {IMAGE, TEXT}
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    objective.update_(context(_OnHyperboloid().model(), rows))
    assert objective.state_dict()["terms.squares.updates"].item() == 1


def test_warmup_raises_a_weight_step_by_step() -> None:
    model = _OnHyperboloid().model()
    ctx = context(model, {IMAGE: torch.full((2, 2), 2.0, dtype=torch.float64)})
    objective = Objective({"a": Squares(), "b": Squares()}, weights={"b": 0.5}, warmup={"b": [1, 5]})
    totals = []
    for _ in range(7):
        totals.append(objective(ctx).total.item())
        objective.update_(ctx)
    assert totals == pytest.approx([4 + 4 * 0.5 * share for share in (0, 0, 0.25, 0.5, 0.75, 1, 1)])


def test_warmup_goes_on_after_loading() -> None:
    ctx = context(_OnHyperboloid().model(), {IMAGE: random_features(2)})
    objective, other = (Objective({"a": Squares()}, warmup={"a": [0, 4]}) for _ in range(2))
    objective.update_(ctx)
    other.load_state_dict(objective.state_dict())
    assert float(other.weight("a")) == 0.25
    assert "steps" not in Objective({"a": Squares()}).state_dict()


@pytest.mark.parametrize(("warmup", "words"), [
    ({"b": [0, 4]}, r"\['b'\] name no term"),
    ({"a": [4, 4]}, r"warmup.a: got \[4, 4\]"),
    ({"a": [3]}, r"warmup.a: got \[3\]"),
])  # fmt: skip
def test_warmup_is_checked(warmup: dict[str, list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Objective({"a": Squares()}, warmup=warmup)


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


def test_a_context_with_other_embeddings_keeps_the_rest() -> None:
    ctx = context(_OnHyperboloid().model(), {IMAGE: random_features(2), TEXT: random_features(2, seed=1)})
    local, gathered = torch.zeros(2, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    other = ctx.with_embeddings(IMAGE, local, gathered)
    assert other.embeddings(IMAGE) is local and other.embeddings(IMAGE, gathered=True) is gathered
    assert other.embeddings(TEXT) is ctx.embeddings(TEXT)  # computed once, whichever asks first
    assert ctx.embeddings(IMAGE) is not local
    similarity = ctx.model.geometry.pairwise_similarity
    assert torch.equal(other.similarity(TEXT, IMAGE), similarity(ctx.embeddings(TEXT), gathered))


def test_every_loss_term_has_a_contract_test() -> None:
    """A concrete LossTerm in hypvl.losses without a LossContract test fails here."""
    terms: set[type] = set()
    for info in pkgutil.iter_modules(hypvl.losses.__path__):
        module = importlib.import_module(f"hypvl.losses.{info.name}")
        terms |= {
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, LossTerm)
            and not inspect.isabstract(value)
            and value.__module__ == module.__name__
        }
        if any(t.__module__ == module.__name__ and t is not LossTerm for t in terms):
            importlib.import_module(f"tests.losses.test_{info.name}")
    covered = {type(test().make()) for test in below(LossContract)}
    assert terms - {LossTerm} <= covered, f"no contract test for {terms - {LossTerm} - covered}"
