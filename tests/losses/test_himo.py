"""HiMo's texts: only the leading principal directions stay (numbers: tests/parity/test_hyper3.py)."""

import pytest
import torch

from hypvl.geometry.scorers import NegativeDistance
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.himo import PrincipalContrastive, leading_directions
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class TestPrincipalContrastive(LossContract):
    def make(self) -> LossTerm:
        return PrincipalContrastive(share=0.8)

    def _check_gradient(self, *, fast_mode: bool) -> None:
        """The directions are constants to the gradient, which differences cannot see: six rows have them all."""
        rows = {view: x.requires_grad_() for view, x in self.rows(6).items()}
        model, term = self.model(), PrincipalContrastive(share=1.0)
        assert torch.autograd.gradcheck(
            lambda image, text: term(context(model, {IMAGE: image, TEXT: text})),
            (rows[IMAGE], rows[TEXT]),
            atol=1e-6,
            rtol=1e-5,
            fast_mode=fast_mode,
        )


def test_directions_by_hand() -> None:
    """Variances 4 and 1 along the axes, in shares 0.8 and 0.2."""
    x = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]], dtype=torch.float64) + 5
    only_first = torch.stack([x[:, 0], torch.full((4,), 5.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(leading_directions(x, share=0.79), only_first)
    torch.testing.assert_close(leading_directions(x, share=0.81), x)
    torch.testing.assert_close(leading_directions(x, share=1.0), x)


def test_the_gradient_stays_in_the_directions_and_the_mean() -> None:
    x = random_features(6).requires_grad_()
    cotangent = random_features(6, seed=1)
    (gradient,) = torch.autograd.grad(leading_directions(x, share=0.01), x, cotangent)
    mean = cotangent.mean(0)
    _, _, directions = torch.linalg.svd(x.detach() - x.detach().mean(0))
    first = directions[:1]
    expected = (cotangent - mean) @ first.mT @ first + mean
    torch.testing.assert_close(gradient, expected)


def test_all_directions_are_the_contrast_itself() -> None:
    rows = {IMAGE: random_features(5), TEXT: random_features(5, seed=1)}
    model = TestPrincipalContrastive().model()
    whole = PrincipalContrastive(share=1.0)(context(model, rows))
    torch.testing.assert_close(whole, Contrastive()(context(model, rows)))
    assert not torch.allclose(PrincipalContrastive(share=0.3)(context(model, rows)), whole)


def test_identical_texts_stay_where_they_are() -> None:
    x = random_features(1).expand(4, -1).clone().requires_grad_()
    rebuilt = leading_directions(x)
    torch.testing.assert_close(rebuilt, x)
    (gradient,) = torch.autograd.grad(rebuilt.sum(), x)
    assert gradient.isfinite().all()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="share: got 0; expected a number above 0"):
        PrincipalContrastive(share=0)
    model = GeometryOnly(TestPrincipalContrastive().model().geometry, NegativeDistance())
    with pytest.raises(ValueError, match="scale: got 'local'; the scorer has none"):
        PrincipalContrastive(scale="local").check({"student": model})
