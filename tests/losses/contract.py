"""What every loss term must keep; a test class per term subclasses this."""

import math
from collections.abc import Mapping
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from hypvl.losses.base import LossTerm, Objective, View
from tests.losses.implementations import forced
from tests.losses.toy import GeometryOnly, context, random_features

Rows: TypeAlias = dict[View, Tensor]


class LossContract:
    """Subclass and give :meth:`make`; override what differs: the geometry, the rows, the rest of the batch.

    ``tests/losses/test_distributed.py`` runs every subclass on two processes, too.
    """

    permutes: bool = True  # False where the order of the batch matters, said in the term's docstring
    per_sample: Mapping[str, int] = {}  # source of a view -> its rows per sample, where that is not 1

    def make(self) -> LossTerm:
        raise NotImplementedError

    def model(self) -> GeometryOnly:
        return GeometryOnly(Lorentz(curv_init=1.0), NegativeDistance())

    def flat_model(self) -> GeometryOnly:
        return GeometryOnly(Euclidean(min_radius=0.2), NegativeDistance())

    def batch(self, count: int) -> dict[str, Tensor]:
        """What the batch holds beside the views, first dimension ``count``: masks, labels."""
        return {}

    def value(self, rows: Rows, batch: dict[str, Tensor] | None = None) -> Tensor:
        views = sorted(rows, key=str)
        count = len(rows[views[0]]) // self.per_sample.get(views[0].source, 1)
        return self.make()(context(self.model(), rows, **(self.batch(count) if batch is None else batch)))

    def rows(self, count: int, *, seed: int = 0) -> Rows:
        return {
            view: random_features(count * self.per_sample.get(view.source, 1), seed=100 * seed + i)
            for i, view in enumerate(sorted(self.make().needs, key=str))
        }

    def test_declares_views(self) -> None:
        needs = self.make().needs
        assert needs and all(isinstance(view, View) for view in needs)

    def test_same_for_any_order_of_the_batch(self) -> None:
        if not self.permutes:
            assert "order" in (type(self.make()).__doc__ or ""), "say in the docstring that the order matters"
            return
        rows, batch, order = self.rows(6), self.batch(6), torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = {view: x.unflatten(0, (6, -1))[order].flatten(0, 1) for view, x in rows.items()}
        same = self.value(shuffled, {key: x[order] for key, x in batch.items()})
        torch.testing.assert_close(self.value(rows, batch), same, rtol=1e-10, atol=1e-12)

    def test_forward_changes_no_state(self) -> None:
        term, model, rows = self.make(), self.model(), self.rows(5)
        before = {k: v.clone() for k, v in (term.state_dict() | model.state_dict()).items()}
        first, second = (term(context(model, rows, **self.batch(5))) for _ in range(2))
        assert torch.equal(first, second)
        after = term.state_dict() | model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)

    def test_goes_on_the_same_after_saving_and_loading(self) -> None:
        term, other, model = self.make(), self.make(), self.model()
        for step in range(2):
            ctx = context(model, self.rows(5, seed=step), **self.batch(5))
            term(ctx)
            term.update_(ctx)
            term.step_()
        other.load_state_dict(term.state_dict())
        rows = self.rows(5, seed=7)
        values = [t(context(model, rows, **self.batch(5))) for t in (term, other)]
        assert torch.equal(*values)

    def test_degenerate_batches_are_finite(self) -> None:
        same = random_features(1)
        batches = {
            "one row": lambda n, i: random_features(n, seed=i),
            "two rows": lambda n, i: random_features(2 * n, seed=i),
            "identical rows": lambda n, i: same.expand(4 * n, -1),
            "zero rows": lambda n, i: torch.zeros(3 * n, 4, dtype=torch.float64),
            "large rows": lambda n, i: random_features(3 * n, seed=i, scale=30.0),
        }
        for name, make_rows in batches.items():
            rows = {
                view: make_rows(self.per_sample.get(view.source, 1), i).clone().requires_grad_()
                for i, view in enumerate(sorted(self.make().needs, key=str))
            }
            value = self.value(rows)
            assert torch.isfinite(value), name
            value.backward()
            for view, x in rows.items():
                assert x.grad is not None and torch.isfinite(x.grad).all(), f"{name}: gradient of {view}"

    @pytest.mark.parametrize("what", [math.nan, math.inf, -math.inf])
    def test_a_row_that_is_no_number_shows(self, what: float) -> None:
        """Also where a mask leaves it out, a hinge cuts it off, or a scorer clamps it. In fp32: fp64 may refuse it."""
        rows, batch, model = (
            {view: x.float() for view, x in self.rows(4).items()},
            self.batch(4),
            self.model(),
        )
        objective = Objective({"term": self.make()})
        assert torch.isfinite(objective(context(model, rows, **batch)).total)
        for view, x in rows.items():
            for place in range(len(x)):
                broken = x.clone()
                broken[place, 1] = what
                total = objective(context(model, {**rows, view: broken}, **batch)).total
                assert not torch.isfinite(total), f"row {place} of {view}"

    @pytest.mark.parametrize(
        "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str
    )
    @pytest.mark.parametrize("space", ["own", "flat"])
    def test_any_size_is_finite_or_refused(self, space: str, dtype: torch.dtype) -> None:
        """Value and gradients, dense and tiled; what is refused says why."""
        model = (self.model() if space == "own" else self.flat_model()).to(dtype)
        term, rows = self.make(), self.rows(6)
        for size in (1e9, 1e18, 1e20, 1e30, 1e37) if dtype == torch.float32 else (1e60, 1e75, 1e145, 1e160):
            for implementation in ("chosen", "tiled"):
                large = {view: (size * x).to(dtype).requires_grad_() for view, x in rows.items()}
                with forced(implementation):
                    try:
                        value = term(context(model, large, **self.batch(6)))
                    except ValueError as error:
                        output = str(error)
                        assert any(word in output for word in ("beyond", "does not fit", "bias")), output
                        continue
                assert torch.isfinite(value), f"{size:g}"
                value.backward()
                for view, x in large.items():
                    assert x.grad is None or torch.isfinite(x.grad).all(), f"{size:g}: gradient of {view}"

    def test_gradient_is_right(self) -> None:
        self._check_gradient(fast_mode=True)  # along random directions

    @pytest.mark.slow
    def test_every_entry_of_the_gradient_is_right(self) -> None:
        self._check_gradient(fast_mode=False)  # a second and more for each term

    def _check_gradient(self, *, fast_mode: bool) -> None:
        rows = {view: x.requires_grad_() for view, x in self.rows(3).items()}
        views = list(rows)
        assert torch.autograd.gradcheck(
            lambda *xs: self.value(dict(zip(views, xs, strict=True))),
            tuple(rows.values()),
            atol=1e-6,
            rtol=1e-5,
            fast_mode=fast_mode,
        )
