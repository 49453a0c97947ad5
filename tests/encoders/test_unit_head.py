"""The head that starts with equal radii: lengths, order of distances, what it learns."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.encoders.heads import ProjectionHead, UnitProjectionHead
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere


def rows(count: int, dim: int = 16, *, seed: int = 0) -> Tensor:
    """Vectors of very different lengths about a common one, as the features of a trained model are."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dim, generator=generator) + 2.0
    return x * (0.2 + 5 * torch.rand(count, 1, generator=generator))


def test_lengths_by_hand() -> None:
    head = UnitProjectionHead(2, 2, radius_init=0.5)
    with torch.no_grad():
        head.projection.weight.copy_(torch.eye(2))
        x = torch.tensor([[3.0, 4.0], [0.0, -0.1], [0.0, 0.0]])
        assert head(x).tolist() == [pytest.approx(v) for v in ([0.3, 0.4], [0.0, -0.5], [0.0, 0.0])]
        head.norm_power.fill_(0.5)
        head.log_scale.fill_(math.log(2.0))
        wanted = [2 * math.sqrt(5), 2 * math.sqrt(0.1), 0.0]
        assert head(x).norm(dim=-1).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("curv", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("radii", [(1.0, 1.0), (2.0, 0.3), (0.05, 4.0)])
@torch.no_grad()
def test_distances_have_the_order_of_the_cosines(curv: float, radii: tuple[float, float]) -> None:
    """Exactly, in fp64: equal radii within a modality make the distance a falling function of the cosine."""
    images, texts = rows(30).double(), rows(40, seed=1).double()
    heads = [UnitProjectionHead(16, 8, radius_init=r).double() for r in radii]
    geometry = Lorentz(curv_init=curv)
    raw = [head.projection(x) for head, x in zip(heads, (images, texts), strict=True)]
    cosines = torch.nn.functional.cosine_similarity(raw[0][:, None], raw[1][None], dim=-1)
    x, y = (geometry.lift(head(f)) for head, f in zip(heads, (images, texts), strict=True))
    for similarity in (geometry.pairwise_similarity(x, y), geometry.ranking_similarity(x, y)):
        assert torch.equal(similarity.argsort(-1), cosines.argsort(-1))
        assert torch.equal(similarity.argsort(0), cosines.argsort(0))


@torch.no_grad()
def test_top_one_of_retrieval_and_of_classes_is_that_of_the_cosine_model() -> None:
    """In fp32, as models run: at least 99 % of 2,000 images agree; prompts are pooled as CLIP pools them."""
    visual, textual = UnitProjectionHead(16, 32), UnitProjectionHead(16, 32, radius_init=0.5)
    plain = [ProjectionHead(16, 32), ProjectionHead(16, 32)]
    for head, other in zip(plain, (visual, textual), strict=True):
        head.projection.load_state_dict(other.projection.state_dict())
    images, texts = rows(2000), rows(500, seed=1)
    prompts = [rows(3 + c % 4, seed=10 + c) for c in range(100)]  # ragged
    result = {}
    for name, geometry, scorer, image_head, text_head in (
        ("cosine", Sphere(), Cosine(), *plain),
        ("distance", Lorentz(pooling="direction"), NegativeDistance(), visual, textual),
    ):
        x, y = geometry.lift(image_head(images)), geometry.lift(text_head(texts))
        kind = {"query_modality": "image", "key_modality": "text"}
        result[name] = (
            scorer.scores(geometry, x, y, **kind).argmax(-1),
            scorer.scores(geometry, y, x, query_modality="text", key_modality="image").argmax(-1),
            scorer.class_scores(geometry, x, [text_head(p) for p in prompts]).argmax(-1),
        )
    for one, other in zip(result["cosine"], result["distance"], strict=True):
        assert (one == other).double().mean() >= 0.99
        assert len(one.unique()) > 5  # not the same answer for every query


@torch.no_grad()
def test_pooling_by_the_mean_would_not_keep_the_order() -> None:
    """The mean of unit vectors is short where prompts disagree, and pulls its class towards the root."""
    head = UnitProjectionHead(16, 32)
    images, prompts = rows(500), torch.stack([rows(6, seed=s) for s in range(50)])
    prompts[::2] = prompts[::2, :1]  # every other class has six equal prompts
    image, text = Lorentz().lift(head(images)), head(prompts)
    wanted = Cosine().class_scores(Sphere(), Sphere().lift(head(images)), text).argmax(-1)
    agreement = {
        pooling: (NegativeDistance().class_scores(Lorentz(pooling=pooling), image, text).argmax(-1) == wanted)
        .double()
        .mean()
        for pooling in ("direction", "mean")
    }
    assert agreement["direction"] >= 0.99
    assert agreement["mean"] < 0.95


def test_radii_become_free_in_training() -> None:
    head = UnitProjectionHead(4, 3)
    x = rows(6, 4)
    target = torch.linspace(0.2, 2.0, 6)[torch.argsort(torch.argsort(x.norm(dim=-1)))]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    errors = []
    for _ in range(60):
        error = (head(x).norm(dim=-1) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0] / 5
    assert head.norm_power.item() > 0.1


def test_gradients_are_right_and_finite_at_zero() -> None:
    head = UnitProjectionHead(3, 4).double()
    with torch.no_grad():
        head.norm_power.fill_(0.3)
    x = rows(2, 3).double().requires_grad_()
    parameters = tuple(head.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: head(x), (x, *parameters))
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    head(zero).sum().backward()
    assert zero.grad is not None and zero.grad.eq(0).all()
    assert head(torch.full((1, 3), torch.nan, dtype=torch.float64)).isnan().all()


def test_low_precision_in_fp32_out_and_radius_is_bounded() -> None:
    head = UnitProjectionHead(8, 4, radius_init=1.0, radius_max=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(rows(5, 8))
    assert out.dtype == torch.float32
    # normalised after the upcast: lengths are right to fp32 although the projection was rounded to bf16
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(5), rtol=1e-6, atol=0)
    with torch.no_grad():
        head.log_scale.fill_(3.0)
    head.constrain_()
    assert head.log_scale.item() == pytest.approx(math.log(2.0))
    with pytest.raises(
        ValueError, match=r"radius_init: got 5.0, expected above 0 and at most radius_max = 4.0"
    ):
        UnitProjectionHead(8, 4, radius_init=5.0)
