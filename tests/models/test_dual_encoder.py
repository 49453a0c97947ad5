"""Feature transforms of a model: where they act in each geometry, and that none is the identity."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.feature_transforms import BatchStandardize, Centering
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.text import TextTransformer
from hypvl.errors import ConfigError
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import View
from hypvl.models.dual_encoder import DualEncoder, MissingTowerError

DIM = 6
SPACES: dict[str, tuple[Callable[[], Geometry], Callable[[], Scorer]]] = {
    "sphere": (Sphere, Cosine),
    "lorentz": (Lorentz, NegativeDistance),
    "angles": (lambda: Lorentz(curv_init=0.1, learn_curv=False), ExteriorAngle),
    "flat": (Euclidean, NegativeDistance),
}


def model(space: str, **transforms: Any) -> DualEncoder:
    torch.manual_seed(0)
    geometry, scorer = SPACES[space]
    built = DualEncoder(
        ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4),
        TextTransformer("L1_W16_A2", vocab_size=50, context_length=8),
        visual_head=lambda width: ProjectionHead(width, DIM),
        textual_head=lambda width: ProjectionHead(width, DIM),
        geometry=geometry(),
        scorer=scorer(),
        **transforms,
    )
    return built.double().eval()


def features(count: int, *, seed: int = 0) -> Tensor:
    return 0.4 * torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(space: str) -> tuple[DualEncoder, dict[str, Tensor]]:
    """A model that centres both modalities, and the means."""
    built = model(space, image_transforms=Centering, text_transforms=Centering)
    means = {"image": 0.1 * features(1, seed=8)[0], "text": -0.2 * features(1, seed=9)[0]}
    for modality, mean in means.items():
        built.transforms(modality)[0].fill_(mean)  # type: ignore[operator,arg-type]
    return built, means


def test_a_model_without_transforms_has_no_weights_for_them() -> None:
    plain = model("sphere")
    assert not [name for name in plain.state_dict() if "transforms" in name]
    assert len(plain.transforms("image")) == len(plain.transforms("text")) == 0
    built = model("sphere", image_transforms=BatchStandardize, text_transforms=Centering)
    added = set(built.state_dict()) - set(plain.state_dict())
    assert added == {"text_transforms.0.mean"} | {
        f"image_transforms.0.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize("space", SPACES)
def test_new_transforms_change_no_embedding(space: str) -> None:
    x = features(4)
    plain, built = model(space), model(space, image_transforms=BatchStandardize, text_transforms=Centering)
    torch.testing.assert_close(built.embed(x, modality="text"), plain.embed(x, modality="text"))
    result = built.embed(x, modality="image")  # the variance is 1, plus an eps of 1e-5
    torch.testing.assert_close(result, plain.embed(x, modality="image"), rtol=1e-5, atol=1e-5)


def test_on_the_sphere_they_stand_between_two_normalisations() -> None:
    built, means = centred("sphere")
    x = features(5)
    for modality in ("image", "text"):
        expected = F.normalize(F.normalize(x, dim=-1) - means[modality], dim=-1)
        torch.testing.assert_close(built.embed(x, modality=modality), expected)


@pytest.mark.parametrize("space", ["lorentz", "angles", "flat"])
def test_elsewhere_the_mean_is_taken_from_flat_coordinates(space: str) -> None:
    built, means = centred(space)
    x = features(5)
    result = built.geometry.flatten(built.embed(x, modality="image"))
    torch.testing.assert_close(result, x - means["image"])


@pytest.mark.parametrize("space", SPACES)
def test_encoding_goes_through_them_and_features_do_not(space: str) -> None:
    built, _ = centred(space)
    tokens = torch.tensor([[1, 2, 49], [3, 49, 0]])
    x = built.encode_text(tokens, stage="features")
    torch.testing.assert_close(x, model(space).encode_text(tokens, stage="features"))
    torch.testing.assert_close(built.encode_text(tokens), built.embed(x, modality="text"))


def test_prompts_are_averaged_normalised_centred_and_normalised() -> None:
    built, means = centred("sphere")
    prompts = [features(3, seed=1), features(2, seed=2)]  # ragged
    images = built.embed(features(4, seed=3), modality="image")
    classes = []
    for p in prompts:
        mean = F.normalize(F.normalize(p, dim=-1).mean(0), dim=-1)
        classes.append(F.normalize(mean - means["text"], dim=-1))
    torch.testing.assert_close(built.pool(prompts[0], modality="text"), classes[0])
    torch.testing.assert_close(built.class_scores(images, prompts), images @ torch.stack(classes).T)
    same = [features(3, seed=1), features(3, seed=2)]  # one size: pooled in one go
    torch.testing.assert_close(
        built.class_scores(images, same)[:, 1], images @ built.pool(same[1], modality="text")
    )


@pytest.mark.parametrize("space", ["lorentz", "flat"])
def test_pooled_prompts_elsewhere(space: str) -> None:
    built, means = centred(space)
    prompts = [features(3, seed=1), features(2, seed=2)]
    images = built.embed(features(4, seed=3), modality="image")
    classes = built.geometry.lift(torch.stack([p.mean(0) - means["text"] for p in prompts]))
    expected = built.scores(images, classes, query_modality="image", key_modality="text")
    torch.testing.assert_close(built.class_scores(images, prompts), expected)


def test_prompts_scored_one_by_one_are_centred_one_by_one() -> None:
    built, means = centred("angles")
    prompts = [features(3, seed=1), features(2, seed=2)]
    images = built.embed(features(4, seed=3), modality="image")
    columns = []
    for p in prompts:
        each = built.geometry.lift(p - means["text"])
        angles = built.geometry.cones.pairwise_exterior_angle(images, each)
        assert angles is not None
        columns.append(angles.mean(-1))
    torch.testing.assert_close(built.class_scores(images, prompts), torch.stack(columns, dim=-1))


def test_several_transforms_are_lifted_in_between() -> None:
    built = model("sphere", image_transforms=[Centering, Centering])
    first, second = 0.3 * features(2, seed=7)
    for centering, mean in zip(built.transforms("image"), (first, second), strict=True):
        centering.fill_(mean)  # type: ignore[operator]
    x = features(4)
    once = F.normalize(F.normalize(x, dim=-1) - first, dim=-1)
    torch.testing.assert_close(built.embed(x, modality="image"), F.normalize(once - second, dim=-1))
    assert {n for n in built.state_dict() if "transforms" in n} == {
        "image_transforms.0.mean",
        "image_transforms.1.mean",
    }


def test_update_moves_the_statistics_of_each_transform_by_its_own_inputs() -> None:
    built = model("sphere", image_transforms=[Centering, BatchStandardize], text_transforms=BatchStandardize)
    mean = 0.3 * features(1, seed=7)[0]
    built.transforms("image")[0].fill_(mean)  # type: ignore[operator]
    built.train()
    images, texts, more = features(5), features(5, seed=1), features(5, seed=2)
    built.update_(image=[images], text=[texts, more])
    reached = F.normalize(F.normalize(images, dim=-1) - mean, dim=-1)
    norm = built.transforms("image")[1]
    torch.testing.assert_close(norm.running_mean, 0.1 * reached.mean(0))
    expected = 0.9 * 0.1 * F.normalize(texts, dim=-1).mean(0) + 0.1 * F.normalize(more, dim=-1).mean(0)
    torch.testing.assert_close(built.transforms("text")[0].running_mean, expected)
    assert torch.equal(built.transforms("image")[0].mean, mean)


def test_a_transform_may_have_a_range_to_keep() -> None:
    class Bounded(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.full((dim,), 9.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * x

        def constrain_(self) -> None:
            self.gain.data.clamp_(max=2.0)

    built = model("flat", image_transforms=Bounded)
    built.constrain_()
    assert built.transforms("image")[0].gain.tolist() == [2.0] * DIM


def test_heads_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="out_features 6 and 5 differ"):
        DualEncoder(
            ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4),
            TextTransformer("L1_W16_A2", vocab_size=50, context_length=8),
            visual_head=lambda width: ProjectionHead(width, 6),
            textual_head=lambda width: ProjectionHead(width, 5),
            geometry=Sphere(),
            scorer=Cosine(),
        )


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (ExteriorAngle(), "got Sphere, which has no exterior angles"),
        (NegativeDistance(ranking="published"), "got 'published' with Sphere, expected a product of spaces"),
    ],
)
def test_a_scorer_and_a_geometry_that_do_not_fit_are_refused_at_once(scorer: Scorer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DualEncoder(None, None, geometry=Sphere(), scorer=scorer)


@pytest.mark.parametrize("name", ["query_modality", "key_modality"])
def test_a_misspelt_modality_never_scores(name: str) -> None:
    """Read as a text, "img" turned the sign of the exterior angle round."""
    x = features(2)
    kind = {"query_modality": "image", "key_modality": "text"} | {name: "img"}
    with pytest.raises(ValueError, match=f"{name}: got 'img'; expected 'image' or 'text'"):
        model("angles").scores(x, x, **kind)


def test_other_modalities_and_stages_are_refused_everywhere() -> None:
    built, x = model("sphere"), features(2)
    for call in (
        lambda: built.embed(x, modality="img"),  # type: ignore[arg-type]
        lambda: built.project(x, modality="img"),  # type: ignore[arg-type]
        lambda: built.pool(x, modality="img"),  # type: ignore[arg-type]
        lambda: built.transforms("img"),  # type: ignore[arg-type]
        lambda: View("img", "image"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="modality: got 'img'; expected 'image' or 'text'"):
            call()
    with pytest.raises(
        ValueError, match="stage: got 'feature'; expected 'trunk', 'features' or 'embeddings'"
    ):
        built.encode_image(torch.zeros(1, 3, 16, 16), stage="feature")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [("a cat", "are a str"), (["a cat"], "are a list"), (torch.zeros(1, 4), "have dtype torch.float32")],
)
def test_texts_that_are_no_tokens_are_named(tokens: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"tokens {message}, but a tensor .*hypvl.get_tokenizer"):
        model("sphere").encode_text(tokens)


def test_a_model_of_texts_alone_says_that_it_takes_no_images() -> None:
    texts_only = DualEncoder(
        None,
        TextTransformer("L1_W16_A2", vocab_size=50, context_length=8),
        textual_head=lambda width: ProjectionHead(width, DIM),
        geometry=Sphere(),
        scorer=Cosine(),
    )
    assert not hasattr(texts_only, "image_size") and texts_only.context_length == 8
    assert getattr(texts_only, "image_size", None) is None
    said = r"^model\.visual: is null, so this model takes no images; give it one to encode images\.$"
    for ask in (lambda: texts_only.image_size, lambda: texts_only.tower("image")):
        with pytest.raises(MissingTowerError, match=said) as caught:
            ask()
        assert isinstance(caught.value, ConfigError) and caught.value.exit_code == 2
    with pytest.raises(AttributeError, match="no attribute 'image_sise'"):
        texts_only.image_sise  # noqa: B018
