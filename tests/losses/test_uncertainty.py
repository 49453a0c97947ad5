import math

import pytest
import torch

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment, entailment_loss
from hypvl.losses.info_nce import softmax_cross_entropy
from hypvl.losses.uncertainty import (
    BOX_IMAGE,
    BOX_TEXT,
    AngledEntailment,
    Calibration,
    GlobalLocalContrastive,
    UncertaintyEntropy,
    angled_entailment,
    calibration_loss,
    confidence,
    uncertainty,
    uncertainty_entropy,
)
from tests.geometry.poincare import PoincareBall
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

OWNER = torch.tensor([0, 0, 0, 2])  # boxes of the first and the third of three samples


def product_model() -> GeometryOnly:
    return GeometryOnly(Product(2, 2), NegativeDistance())


def boxes(seed: int = 0) -> dict[View, torch.Tensor]:
    """Features of three samples with the boxes of ``OWNER``."""
    counts = {IMAGE: 3, TEXT: 3, BOX_IMAGE: len(OWNER), BOX_TEXT: len(OWNER)}
    return {view: random_features(n, seed=10 * seed + i) for i, (view, n) in enumerate(counts.items())}


class TestGlobalLocalContrastive(LossContract):
    def make(self) -> LossTerm:
        return GlobalLocalContrastive()

    def _check_gradient(self, *, fast_mode: bool) -> None:
        """The confidence is a constant to the gradient, which differences cannot see."""
        rows, model = self.rows(3), self.model()
        query, key = rows[BOX_IMAGE].requires_grad_(), rows[TEXT].requires_grad_()
        k = confidence(uncertainty(model.geometry.lift(query)))

        def fixed(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            ctx = context(model, {BOX_IMAGE: query, TEXT: key})
            return softmax_cross_entropy(ctx.logits(BOX_IMAGE, TEXT), torch.arange(3), row_scale=k)

        assert torch.autograd.gradcheck(fixed, (query, key), atol=1e-6, rtol=1e-5, fast_mode=fast_mode)
        wanted = torch.autograd.grad(fixed(query, key), (query, key))
        value = GlobalLocalContrastive([(BOX_IMAGE, "text")])(context(model, rows))
        torch.testing.assert_close(torch.autograd.grad(value, (query, key)), wanted, rtol=1e-9, atol=1e-12)


class TestGlobalLocalContrastiveOnSphere(LossContract):
    def make(self) -> LossTerm:
        return GlobalLocalContrastive([("image", "text"), ("text", "image")], same_image="published")

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestAngledEntailment(LossContract):
    def make(self) -> LossTerm:
        return AngledEntailment(aperture_factor=0.7)


class TestAngledEntailmentInFactors(LossContract):
    def make(self) -> LossTerm:
        return AngledEntailment(general=BOX_TEXT, specific=BOX_IMAGE)

    def model(self) -> GeometryOnly:
        return product_model()


class TestUncertaintyEntropy(LossContract):
    def make(self) -> LossTerm:
        return UncertaintyEntropy()


class TestCalibration(LossContract):
    def make(self) -> LossTerm:
        return Calibration(general=BOX_IMAGE, specific="image", aperture_factor=1.2)

    def _check_gradient(self, *, fast_mode: bool) -> None:
        """The loss that the uncertainty follows is a constant to the gradient, which differences cannot see."""
        term, model, rows = self.make(), self.model(), self.rows(3)
        x = rows[BOX_IMAGE].requires_grad_()
        loss = AngledEntailment(general=BOX_IMAGE, specific="image", aperture_factor=1.2).per_pair(
            context(model, rows)
        )

        def fixed(x: torch.Tensor) -> torch.Tensor:
            return calibration_loss(loss.detach(), uncertainty(model.geometry.lift(x))).mean()

        assert torch.autograd.gradcheck(fixed, (x,), atol=1e-6, rtol=1e-5, fast_mode=fast_mode)
        wanted = torch.autograd.grad(fixed(x), x)
        result = torch.autograd.grad(term(context(model, rows)), x)
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-14)

    def test_degenerate_batches_are_finite(self) -> None:
        """Only the general item gets a gradient: there is none to check for the specific one."""
        for count, scale in ((1, 0.7), (2, 0.7), (3, 0.0), (3, 30.0)):
            for same in (False, True):
                rows = {BOX_IMAGE: random_features(count, scale=scale)}
                if same:
                    rows[BOX_IMAGE] = rows[BOX_IMAGE][:1].repeat(count, 1)
                rows[IMAGE] = rows[BOX_IMAGE].clone() if same else random_features(count, seed=1, scale=scale)
                x = rows[BOX_IMAGE].requires_grad_()
                value = self.value(rows)
                value.backward()
                assert torch.isfinite(value)
                assert x.grad is not None and torch.isfinite(x.grad).all()


def test_uncertainty_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [math.log(3.0), 0.0]], dtype=torch.float64)
    u = uncertainty(x)
    assert u.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-5)), math.log(4 / 3)], rel=1e-15)
    assert uncertainty(x.to(torch.bfloat16)).dtype == torch.float32


def test_uncertainty_falls_with_the_distance_to_the_root() -> None:
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    u = uncertainty(torch.linspace(0, 10, 50, dtype=torch.float64)[:, None] * direction)
    assert (u.diff() < 0).all()
    root = torch.zeros(1, 3, requires_grad=True)
    uncertainty(root).sum().backward()
    assert root.grad is not None and root.grad.eq(0).all()


@pytest.mark.parametrize(
    "term", [GlobalLocalContrastive([("image", "text")]), Calibration(), UncertaintyEntropy("text")]
)
def test_the_same_points_in_other_coordinates_have_the_same_uncertainty(term: LossTerm) -> None:
    features = {IMAGE: random_features(5, seed=1), TEXT: random_features(5, seed=2)}
    result = []
    for geometry in (Lorentz(curv_init=0.7), PoincareBall(curv_init=0.7)):
        rows = {view: x.clone().requires_grad_() for view, x in features.items()}
        loss = term(context(GeometryOnly(geometry, NegativeDistance()), rows))
        result.append((loss, *torch.autograd.grad(loss, [rows[TEXT]])))
    torch.testing.assert_close(result[1], result[0], rtol=1e-7, atol=1e-9)


def test_confidence_by_hand() -> None:
    w = torch.tensor([0.0, math.log(2)], dtype=torch.float64, requires_grad=True)
    k = confidence(w)
    assert k.tolist() == pytest.approx([1.0, math.sqrt(0.5)])
    assert not k.requires_grad


def test_contrastive_by_hand() -> None:
    """With w = 2 log 2 the temperature doubles: a margin of log 9 counts as log 3."""
    logits = torch.tensor([[math.log(9.0), 0.0], [0.0, math.log(9.0)]], dtype=torch.float64)
    w = torch.tensor([2 * math.log(2), 0.0], dtype=torch.float64)
    value = softmax_cross_entropy(logits, torch.tensor([0, 1]), row_scale=confidence(w))
    assert value.item() == pytest.approx((math.log(4 / 3) + math.log(10 / 9)) / 2, rel=1e-12)


def test_far_out_it_is_the_contrastive_loss() -> None:
    rows = {IMAGE: random_features(4, scale=9.0), TEXT: random_features(4, seed=1, scale=9.0)}
    model = TestGlobalLocalContrastive().model()
    plain = Contrastive()(context(model, rows))
    value = GlobalLocalContrastive([("image", "text"), ("text", "image")])(context(model, rows))
    assert value.item() == pytest.approx(plain.item(), rel=1e-6)


def test_the_temperature_is_that_of_the_query() -> None:
    """Two boxes at the root (w = log 2) against images far out: logits are divided by sqrt(2)."""
    model = GeometryOnly(Lorentz(), NegativeDistance(further_log_scales={"other": math.log(3.0)}))
    images = torch.tensor([[7.0, 0, 0, 0], [0, 9.0, 0, 0]], dtype=torch.float64)
    rows = {IMAGE: images, BOX_TEXT: torch.zeros(2, 4, dtype=torch.float64)}
    value = GlobalLocalContrastive([(BOX_TEXT, "image")], scale="other")(context(model, rows)).item()
    # From the root the distances are 7 and 9: a margin of 2, for the one box and against the other.
    margin = 3 * 2 / math.sqrt(2)
    expected = (math.log1p(math.exp(-margin)) + math.log1p(math.exp(margin))) / 2
    assert value == pytest.approx(expected, rel=1e-6)


def repeated(model: GeometryOnly, rows: dict[View, torch.Tensor], *, mask: bool) -> torch.Tensor:
    """The loss from the matrix of all boxes and their wholes, one column for each box; no equal wholes in ``rows``."""
    losses = []
    for query, key in ((BOX_IMAGE, TEXT), (BOX_TEXT, IMAGE)):
        x, y = (model.geometry.lift(rows[view]) for view in (query, key))
        d = model.geometry.pairwise_distance(x, y[OWNER])  # (M, M)
        z = (
            -model.scorer.scale * d / (1 + torch.exp(-x.norm(dim=1)))[:, None].sqrt()
        )  # exp(softplus(-r)) = 1 + exp(-r)
        if mask:
            same = OWNER[:, None] == OWNER
            z = z.masked_fill(same & ~torch.eye(len(OWNER), dtype=torch.bool), -torch.inf)
        losses.append((z.logsumexp(1) - z.diagonal()).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("same_image", ["mask", "published"])
def test_wholes_are_keys_once_for_each_box(same_image: str) -> None:
    rows, model = boxes(), TestGlobalLocalContrastive().model()
    term = GlobalLocalContrastive(same_image=same_image)
    value = term(context(model, rows, box_owner=OWNER))
    expected = repeated(model, rows, mask=same_image == "mask")
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    if same_image == "published":  # three of four boxes have three equal logits
        assert value > 3 / 4 * math.log(3)
    # The second sample has no box, so its caption and image are no keys.
    rows[TEXT][1] += 1.0
    rows[IMAGE][1] += 1.0
    torch.testing.assert_close(term(context(model, rows, box_owner=OWNER)), value)


def test_each_box_weighs_once_in_every_term() -> None:
    """Two samples with one and three boxes: means over boxes, not over samples."""
    rows, model = boxes(), TestCalibration().model()
    entail = AngledEntailment(general=BOX_IMAGE, specific="image")
    ctx = context(model, rows, box_owner=OWNER)
    alone = [
        entail(context(model, {BOX_IMAGE: rows[BOX_IMAGE][m : m + 1], IMAGE: rows[IMAGE][o : o + 1]})).item()
        for m, o in enumerate(OWNER.tolist())
    ]
    assert entail(ctx).item() == pytest.approx(sum(alone) / 4)
    u = uncertainty(model.geometry.lift(rows[BOX_IMAGE]))
    expected = calibration_loss(torch.tensor(alone, dtype=torch.float64), u).mean().item()
    assert Calibration(general=BOX_IMAGE, specific="image")(ctx).item() == pytest.approx(expected)
    assert UncertaintyEntropy()(ctx).item() == pytest.approx(uncertainty_entropy(u).item())


@pytest.mark.filterwarnings("ignore:batch. 'box_owner' is empty on every rank")
@pytest.mark.parametrize("over", ["gathered", "local"])
def test_without_any_box_the_terms_are_zero(over: str) -> None:
    rows = boxes()
    for view in (BOX_IMAGE, BOX_TEXT):
        rows[view] = rows[view][:0].requires_grad_()
    terms = {
        "contrast": GlobalLocalContrastive(over=over),
        "entailment": AngledEntailment(general=BOX_IMAGE, specific="image", over=over),
        "calibration": Calibration(general=BOX_TEXT, specific="text", over=over),
        "entropy": UncertaintyEntropy(over=over),
    }
    ctx = context(TestCalibration().model(), rows, box_owner=OWNER[:0])
    output = Objective(terms)(ctx)
    assert output.total.item() == 0.0
    output.total.backward()
    assert rows[BOX_IMAGE].grad is not None and rows[BOX_IMAGE].grad.shape == (0, 4)


def test_entailment_by_hand() -> None:
    angle = torch.tensor([[1.0, 0.2], [0.1, 0.1]], dtype=torch.float64)
    aperture = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    loss = angled_entailment(angle, aperture, aperture_factor=1.2, angle_weight=0.5)
    assert loss.tolist() == pytest.approx([(0.4 + 0.5 * 1.2) / 2, 0.5 * 0.1])


def test_without_the_pull_it_is_the_entailment_loss() -> None:
    angle, aperture = random_features(5).abs(), random_features(5, seed=1).abs()
    loss = angled_entailment(angle, aperture, aperture_factor=0.7, angle_weight=0.0).mean()
    assert loss.item() == pytest.approx(entailment_loss(angle, aperture, aperture_factor=0.7).item())
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    terms = AngledEntailment(aperture_factor=0.7, angle_weight=0.0), Entailment(aperture_factor=0.7)
    one, other = (term(context(product_model(), rows)).item() for term in terms)
    assert one == pytest.approx(other)


def test_inside_the_cone_the_angle_still_pulls() -> None:
    text = torch.tensor([[0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    image = torch.tensor([[1.5, 0.05, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    model = TestAngledEntailment().model()
    assert Entailment()(context(model, {TEXT: text, IMAGE: image})).item() == 0
    AngledEntailment(angle_weight=0.1)(context(model, {TEXT: text, IMAGE: image})).backward()
    assert image.grad is not None and image.grad[0, 1] > 0  # downhill is towards the axis


def test_calibration_by_hand() -> None:
    loss = torch.tensor([1.0, 2.0], dtype=torch.float64)
    w = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    expected = [0.5 / (1 + 1e-6), 0.5 * 2 / (2 + 1e-6) + 0.5 * math.log(2)]
    assert calibration_loss(loss, w).tolist() == pytest.approx(expected, rel=1e-15)


def test_calibrated_uncertainty_is_the_log_of_the_loss() -> None:
    loss = torch.tensor([1.7, 1.2], dtype=torch.float64, requires_grad=True)
    w = loss.detach().log().requires_grad_()
    calibration_loss(loss, w).sum().backward()
    assert w.grad is not None and w.grad.abs().max() < 1e-5  # the 1e-6 beside exp(w)
    assert loss.grad is None


def test_entropy_by_hand() -> None:
    w = torch.tensor([0.0, math.log(2)], dtype=torch.float64)  # softmax (1/3, 2/3)
    assert uncertainty_entropy(w).item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2), rel=1e-14)
    eps = 0.5
    expected = -(math.log(1 / 3 + eps) + 2 * math.log(2 / 3 + eps)) / 3
    assert uncertainty_entropy(w, eps=eps).item() == pytest.approx(expected, rel=1e-14)
    assert uncertainty_entropy(w[:0]).item() == 0.0


def test_entropy_is_nearly_the_log_of_the_number_of_items() -> None:
    """Uncertainties lie in (0, log 2], whose softmax is never far from even."""
    least = min(
        uncertainty_entropy(torch.tensor([math.log(2)] * far + [0.0] * (1000 - far), dtype=torch.float64))
        for far in range(0, 1001, 50)
    )
    assert math.log(1000) - 0.06 < least < math.log(1000) - 0.05


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="pairs: got none"):
        GlobalLocalContrastive([])
    with pytest.raises(ValueError, match="same_image: got 'keep'; expected 'mask' or 'published'"):
        GlobalLocalContrastive(same_image="keep")
    for term in (GlobalLocalContrastive, AngledEntailment, Calibration, UncertaintyEntropy, Entailment):
        with pytest.raises(ValueError, match="over: got 'rank'; expected 'gathered' or 'local'"):
            term(over="rank")
    with pytest.raises(ValueError, match="aperture_factor: got 0"):
        AngledEntailment(aperture_factor=0)
    with pytest.raises(ValueError, match=r"angle_weight: got -1"):
        Calibration(angle_weight=-1)
    with pytest.raises(ValueError, match=r"eps: got -1"):
        UncertaintyEntropy(eps=-1)
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    with pytest.raises(ValueError, match="Sphere has no cones"):
        AngledEntailment()(context(GeometryOnly(Sphere(), Cosine()), rows))
    model = GeometryOnly(Lorentz(), NegativeDistance())
    objective = Objective({"local": GlobalLocalContrastive(scale="local")})
    with pytest.raises(
        ValueError, match=r"terms\.local: scale: got 'local'; the scorer has none beside its own"
    ):
        objective.check({"student": model})
    with pytest.raises(ValueError, match=r"box_image@student: not encoded"):
        GlobalLocalContrastive()(PairContext(rows, batch={}, model=model))


def test_boxes_of_another_group_are_refused() -> None:
    rows = {**boxes(), View.parse("text:query_text"): random_features(2)}
    ctx = context(product_model(), rows, box_owner=OWNER, query_owner=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="their rows do not belong together"):
        AngledEntailment(general="text:query_text", specific=BOX_IMAGE)(ctx)
