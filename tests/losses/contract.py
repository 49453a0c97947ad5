"""What every loss term must keep; a test class per term subclasses this."""

import torch
from torch import Tensor

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scoring import NegativeDistance
from hypvl.losses.base import LossTerm, View
from tests.losses.toy import GeometryOnly, context, random_features


class LossContract:
    """Subclass and give :meth:`make`; override :meth:`model` for another geometry."""

    def make(self) -> LossTerm:
        raise NotImplementedError

    def model(self) -> GeometryOnly:
        return GeometryOnly(Lorentz(curv_init=1.0), NegativeDistance())

    def value(self, rows: dict[View, Tensor]) -> Tensor:
        return self.make()(context(self.model(), rows))

    def rows(self, count: int) -> dict[View, Tensor]:
        views = sorted(self.make().needs, key=str)
        return {v: random_features(count, seed=i).requires_grad_() for i, v in enumerate(views)}

    def test_declares_views(self) -> None:
        needs = self.make().needs
        assert needs and all(isinstance(view, View) for view in needs)

    def test_same_for_any_order_of_the_batch(self) -> None:
        rows, order = self.rows(6), torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = {view: x.detach()[order] for view, x in rows.items()}
        torch.testing.assert_close(self.value(rows), self.value(shuffled), rtol=1e-10, atol=1e-12)

    def test_forward_changes_no_state(self) -> None:
        term, model, rows = self.make(), self.model(), self.rows(5)
        before = {k: v.clone() for k, v in (term.state_dict() | model.state_dict()).items()}
        first, second = term(context(model, rows)), term(context(model, rows))
        assert torch.equal(first, second)
        after = term.state_dict() | model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)

    def test_degenerate_batches_are_finite(self) -> None:
        same = random_features(1).expand(4, -1)
        batches = {
            "one row": lambda i: random_features(1, seed=i),
            "two rows": lambda i: random_features(2, seed=i),
            "identical rows": lambda i: same,
            "zero rows": lambda i: torch.zeros(3, 4, dtype=torch.float64),
            "large rows": lambda i: random_features(3, seed=i, scale=30.0),
        }
        for name, make_rows in batches.items():
            rows = {
                view: make_rows(i).clone().requires_grad_()
                for i, view in enumerate(sorted(self.make().needs, key=str))
            }
            value = self.value(rows)
            assert torch.isfinite(value), name
            value.backward()
            for view, x in rows.items():
                assert x.grad is not None and torch.isfinite(x.grad).all(), f"{name}: gradient of {view}"

    def test_gradient_is_right(self) -> None:
        rows = self.rows(3)
        views = list(rows)
        assert torch.autograd.gradcheck(
            lambda *xs: self.value(dict(zip(views, xs, strict=True))),
            tuple(rows.values()),
            atol=1e-6,
            rtol=1e-5,
        )
