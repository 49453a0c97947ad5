"""ProtoCPC: by hand, its prior, and Sinkhorn's assignments."""

import math

import pytest
import torch

from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.proto_cpc import ProtoCPC, proto_cpc_loss, sinkhorn
from tests.losses.test_dino import PrototypeContract
from tests.losses.toy import Prototyped, context, random_features


class TestProtoCPC(PrototypeContract):
    def make(self) -> LossTerm:
        return ProtoCPC(student="image", teacher="text", count=5, detach_teacher=False).double()


class TestProtoCPCWithSinkhorn(PrototypeContract):
    def make(self) -> LossTerm:
        return ProtoCPC(student="image", teacher="text", count=5, assignment="sinkhorn", prototypes="student")

    def _check_gradient(self, *, fast_mode: bool) -> None:
        """Assignments have no gradient: the student's alone is compared."""
        rows, term, model = self.rows(3), self.make(), self.model()
        assert torch.autograd.gradcheck(
            lambda x: term(context(model, {**rows, IMAGE: x})),
            rows[IMAGE].clone().requires_grad_(),
            fast_mode=fast_mode,
        )

    def test_degenerate_batches_are_finite(self) -> None:
        for x in (random_features(1), torch.zeros(3, 4, dtype=torch.float64), random_features(3, scale=30.0)):
            rows = {IMAGE: x.clone().requires_grad_(), TEXT: x.clone()}
            value = self.value(rows)
            value.backward()
            assert torch.isfinite(value) and torch.isfinite(rows[IMAGE].grad).all()  # type: ignore[union-attr]


def test_by_hand() -> None:
    """Logits (log 3, 0), all of the target on the first, priors 1 and 3: log(3 + 3) - log 3 = log 2."""
    student, target = torch.tensor([[0.1 * math.log(3.0), 0.0]]), torch.tensor([[1.0, 0.0]])
    value = proto_cpc_loss(student, target, torch.tensor([1.0, 3.0]), temperature=0.1)
    assert value.item() == pytest.approx(math.log(2))


def test_the_prior_moves_to_the_shares_of_prototypes() -> None:
    model, rows = Prototyped(), {IMAGE: random_features(6), TEXT: random_features(6, seed=1)}
    term = ProtoCPC(student="image", teacher="text", count=5, prior_momentum=0.75)
    term.update_(context(model, rows))
    shares = (model.layers["text"](rows[TEXT]) / 0.04).softmax(-1).mean(0).float()
    torch.testing.assert_close(term.prior, 0.75 + 0.25 * 5 * shares)
    assert term.prior.sum().item() == pytest.approx(5.0)


def test_sinkhorn_uses_all_prototypes_alike() -> None:
    logits = random_features(40, 4)
    logits[:, 0] += 3.0  # the favourite of every row
    q = sinkhorn(logits, temperature=0.5, iterations=100)
    torch.testing.assert_close(q.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((4,), 10.0, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_sinkhorn_by_hand() -> None:
    """Rows (1, 1) and (3, 1): columns over 4 and 2 give (1/4, 1/2), (3/4, 1/2); then rows sum to 1."""
    q = sinkhorn(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), temperature=1.0, iterations=1)
    assert q.flatten().tolist() == pytest.approx([1 / 3, 2 / 3, 3 / 5, 2 / 5])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="assignment: got 'hard'; expected 'softmax' or 'sinkhorn'"):
        ProtoCPC(student="image", teacher="text", assignment="hard")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="iterations: got 0"):
        ProtoCPC(student="image", teacher="text", iterations=0)
