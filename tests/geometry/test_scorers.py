"""Scorers: what each model trains, and what it ranks by."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.geometry import lorentz
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.ops.tiled_logsumexp.autograd import log_sum_exps
from tests.geometry.contract import ScorerContract, rows

I_T = {"query_modality": "image", "key_modality": "text"}
T_I = {"query_modality": "text", "key_modality": "image"}


class TestNegativeDistance(ScorerContract):
    def build(self) -> tuple[Lorentz, Scorer]:
        return Lorentz(), NegativeDistance()


class TestNegativeDistanceInFlatSpace(ScorerContract):
    def build(self) -> tuple[Euclidean, Scorer]:
        return Euclidean(), NegativeDistance()


class TestCosine(ScorerContract):
    def build(self) -> tuple[Sphere, Scorer]:
        return Sphere(), Cosine()


class TestCosineWithBias(ScorerContract):
    def build(self) -> tuple[Sphere, Scorer]:
        return Sphere(), Cosine(bias_init=-10.0, log_scale_init=math.log(10))


class TestNegativeDistanceWithFurtherScales(ScorerContract):
    def build(self) -> tuple[Lorentz, Scorer]:
        return Lorentz(), NegativeDistance(further_log_scales={"local": math.log(20.0)})


class TestExteriorAngle(ScorerContract):
    def build(self) -> tuple[Lorentz, Scorer]:
        return Lorentz(curv_init=0.1, learn_curv=False), ExteriorAngle()


def tensor(*values: object) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


def test_the_scale_starts_where_clip_starts_it() -> None:
    scorer = Cosine()
    assert scorer.log_scale.shape == ()
    assert scorer.scale.item() == pytest.approx(1 / 0.07, rel=1e-6)  # fp32 log
    assert set(scorer.state_dict()) == {"log_scale"}
    assert set(Cosine(bias_init=-10.0).state_dict()) == {"log_scale", "bias"}


@pytest.mark.parametrize(
    ("geometry", "scorer"),
    [
        (Lorentz(), NegativeDistance(further_log_scales={"local": math.log(3.0), "far": 1.0})),
        (Sphere(), Cosine(bias_init=-2.0, further_log_scales={"local": math.log(3.0), "far": 1.0})),
        (Lorentz(), ExteriorAngle(further_log_scales={"local": math.log(3.0), "far": 1.0})),
    ],
)
def test_a_further_scale_is_used_where_it_is_named(geometry: Geometry, scorer: Scorer) -> None:
    geometry, scorer = geometry.double(), scorer.double()
    shift = 0.0 if getattr(scorer, "bias", None) is None else -2.0
    with torch.no_grad():
        scorer.log_scale.zero_()
    x, y = geometry.lift(rows(3, seed=0)), geometry.lift(rows(4, seed=1))
    plain, local = (scorer.logits(geometry, x, y, **I_T, scale=name) for name in (None, "local"))
    torch.testing.assert_close(local - shift, 3 * (plain - shift), rtol=1e-7, atol=1e-12)
    tiled = scorer.tiled_logits(geometry, x, y, **I_T, scale="local")
    assert tiled is not None
    stats = log_sum_exps(tiled, torch.arange(3), tile=(2, 2))
    found = stats.rows if tiled.shift is None else stats.rows + tiled.shift
    torch.testing.assert_close(found, local.logsumexp(1), rtol=1e-7, atol=1e-7)
    (grad,) = torch.autograd.grad(local.sum(), scorer.log_scale, allow_unused=True)
    assert grad is None
    scorer.get_parameter("log_scale_far").data.fill_(9.0)
    scorer.constrain_()
    assert scorer.stats() == pytest.approx(
        {"logit_scale": 1.0, "logit_scale_local": 3.0, "logit_scale_far": math.exp(4.6052)}, rel=1e-6
    )
    names = {name for name, _ in scorer.named_parameters()}
    assert (
        names
        == scorer.no_weight_decay
        == type(scorer).no_weight_decay.intersection(names)
        | {
            "log_scale_local",
            "log_scale_far",
        }
    )


def test_hand_values() -> None:
    x, y = tensor([[0.0, 0.0]]), tensor([[3.0, 4.0]])
    scorer = NegativeDistance(log_scale_init=math.log(2)).double()
    with torch.no_grad():
        scorer.log_scale.fill_(math.log(2))
    assert scorer.logits(Euclidean(), x, y, **I_T).item() == pytest.approx(-50.0)
    assert scorer.logits(Lorentz().double(), x, y, **I_T).item() == pytest.approx(-2 * math.asinh(5.0))
    # Ranking is by the inner product: -t(x) t(y) = -sqrt(1 + 25) from the root.
    assert scorer.scores(Lorentz().double(), x, y, **I_T).item() == pytest.approx(-math.sqrt(26))
    siglip = Cosine(bias_init=-10.0).double()
    with torch.no_grad():
        siglip.log_scale.fill_(math.log(10))
    unit = tensor([[0.6, 0.8]])
    assert siglip.logits(Sphere(), unit, unit, **I_T).item() == pytest.approx(0.0)
    assert siglip.scores(Sphere(), unit, unit, **I_T).item() == pytest.approx(1.0)


def test_exterior_angle_takes_the_angle_at_the_query() -> None:
    geometry, scorer = Lorentz().double(), ExteriorAngle(log_scale_init=0.0).double()
    images, texts = rows(3, seed=0), rows(4, seed=1)
    at_image = torch.stack([lorentz.oxy_angle(i, texts, curv=1.0) for i in images])  # (3, 4)
    at_text = torch.stack([lorentz.oxy_angle(t, images, curv=1.0) for t in texts])  # (4, 3)
    near = {"rtol": 0.0, "atol": 1e-10}  # the pairwise form goes through a product
    torch.testing.assert_close(scorer.logits(geometry, images, texts, **I_T), at_image, **near)
    torch.testing.assert_close(scorer.logits(geometry, texts, images, **T_I), -at_text, **near)
    torch.testing.assert_close(scorer.scores(geometry, images, texts, **I_T), at_image, **near)
    torch.testing.assert_close(scorer.scores(geometry, texts, images, **T_I), -at_text, **near)
    published = ExteriorAngle(ranking="published")
    torch.testing.assert_close(published.scores(geometry, texts, images, **T_I), at_image.T, **near)
    torch.testing.assert_close(published.scores(geometry, images, texts, **I_T), -at_text.T, **near)


def test_exterior_angle_compares_one_modality_by_the_manifold() -> None:
    geometry = Lorentz().double()
    x = rows(4, seed=0)
    for modality in ("image", "text"):
        kind = {"query_modality": modality, "key_modality": modality}
        scores = ExteriorAngle().scores(geometry, x, x, **kind)
        torch.testing.assert_close(scores, lorentz.pairwise_inner(x, x, curv=1.0))


def test_exterior_angle_averages_over_the_prompts_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = Lorentz().double()
    images = rows(3, seed=0)
    prompts = [rows(p, seed=10 + p) for p in (2, 5, 1)]
    expected = torch.stack(
        [
            torch.stack([lorentz.oxy_angle(images, geometry.lift(f), curv=1.0) for f in p]).mean(0)
            for p in prompts
        ],
        dim=-1,
    )
    scorer = ExteriorAngle()
    torch.testing.assert_close(scorer.class_scores(geometry, images, prompts), expected, rtol=0, atol=1e-10)
    monkeypatch.setattr("hypvl.geometry.scorers._PROMPTS_AT_ONCE", 3)  # several groups of classes
    torch.testing.assert_close(scorer.class_scores(geometry, images, prompts), expected, rtol=0, atol=1e-10)


def test_pooled_classes_are_those_of_the_geometry() -> None:
    prompts = tensor([[[2.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-3.0, 0.0]]])
    image = tensor([[0.0, 1.0]])
    spherical = Cosine().class_scores(Sphere(), image, prompts)
    torch.testing.assert_close(spherical, tensor([[0.5**0.5, 0.0]]))
    # Classes at the features (1, 0.5) and (-2, 0): minus the squared distances.
    flat = NegativeDistance().class_scores(Euclidean(), image, prompts)
    torch.testing.assert_close(flat, tensor([[-1.25, -5.0]]))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="ranking: got 'best'; expected 'trained' or 'published'"):
        ExteriorAngle(ranking="best")
    with pytest.raises(ValueError, match=r"log_scale_init: got 9\.0, expected at most"):
        Cosine(log_scale_init=9.0)
    with pytest.raises(ValueError, match=r"further_log_scales\.local: got 9\.0, expected at most"):
        NegativeDistance(further_log_scales={"local": 9.0})
    for name in ("max", "a.b"):
        with pytest.raises(ValueError, match=f"got the name '{name}'; expected a word that is not taken"):
            NegativeDistance(further_log_scales={name: 1.0})
    with pytest.raises(
        ValueError, match="scale: got 'local'; the scorer has none beside its own; give it further_"
    ):
        NegativeDistance().scale_of("local")
    unit = torch.eye(2)
    with pytest.raises(ValueError, match="geometry: got Sphere, which has no exterior angles"):
        ExteriorAngle().logits(Sphere(), unit, unit, **I_T)


def test_a_capped_scale_gives_its_log_no_gradient() -> None:
    scorer = NegativeDistance(further_log_scales={"local": 1.0}, scale_max=100.0).double()
    with torch.no_grad():
        scorer.log_scale.fill_(9.0)
    scorer.constrain_()
    assert scorer.log_scale.item() == pytest.approx(4.6052) and scorer.scale.item() == 100.0
    assert torch.autograd.grad(scorer.scale, scorer.log_scale)[0].item() == 0.0
    (gradient,) = torch.autograd.grad(scorer.scale_of("local"), scorer.log_scale_local)
    assert gradient.item() == pytest.approx(math.e, rel=1e-6)
    with pytest.raises(ValueError, match="scale_max: got 0; expected a number above 0"):
        NegativeDistance(scale_max=0)


@pytest.mark.parametrize(
    "scorer", [NegativeDistance(), Cosine(bias_init=-2.0), ExteriorAngle()], ids=lambda s: type(s).__name__
)
def test_class_logits_are_logits_of_the_classes(scorer: Scorer) -> None:
    """Of one prompt a class they are the logits of its embedding; of several they rank as the class scores do."""
    geometry = Sphere() if isinstance(scorer, Cosine) else Lorentz()
    torch.manual_seed(0)
    images, texts = geometry.lift(0.3 * torch.randn(4, 6)), 0.3 * torch.randn(5, 6)
    single = scorer.class_logits(geometry, images, [row[None] for row in texts])
    expected = scorer.logits(
        geometry, images, geometry.lift(texts), query_modality="image", key_modality="text"
    )
    torch.testing.assert_close(single, expected)
    prompts = list(texts.split([2, 3]))
    scores = scorer.class_scores(geometry, images, prompts)
    assert (scorer.class_logits(geometry, images, prompts).argmax(1) == scores.argmax(1)).all()
