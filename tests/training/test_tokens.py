"""Terms that take all tokens of an image, beside its features: one encoding for both, gradient caching, loading."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.image_base import ImageEncoder
from hypvl.encoders.query_pooling import QueryPooling
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, forward_backward
from tests.training.tiny import tiny_batch

FULL = Precision.choose(False, torch.device("cpu"))
ViT = Callable[[], ImageEncoder]


def timm_vit(**options: object) -> TimmImageEncoder:
    args = {"depth": 2, "embed_dim": 16, "num_heads": 2, **options}
    return TimmImageEncoder("vit_tiny_patch16_224", image_size=32, timm_args=args)


ENCODERS: dict[str, ViT] = {
    "mean": lambda: ConvStemViT(16, 1, heads=2, image_size=32, patch_size=8),
    "class token": lambda: ConvStemViT(16, 1, heads=2, image_size=32, patch_size=8, pool="class_token"),
    "timm": timm_vit,
    "timm, checkpointed": lambda: TimmImageEncoder(
        "vit_tiny_patch16_224", image_size=32, grad_checkpointing=True,
        timm_args={"depth": 2, "embed_dim": 16, "num_heads": 2},
    ),
    "timm, averaged": lambda: timm_vit(global_pool="avg", fc_norm=True),
}  # fmt: skip


class Pooled(LossTerm):
    """The mean feature that texts pool out of their images."""

    needs = frozenset({IMAGE, TEXT})
    tokens = frozenset({IMAGE})

    def forward(self, ctx: PairContext) -> Tensor:
        owner = torch.arange(len(ctx.features(TEXT)))
        pooled = ctx.model.pool_queries(ctx.trunk(IMAGE), ctx.trunk(TEXT), owner)  # type: ignore[attr-defined]
        return (pooled * torch.linspace(-1, 1, pooled.numel()).view_as(pooled)).mean()


def model(visual: nn.Module, *, pools: bool = True) -> DualEncoder:
    return DualEncoder(
        visual,
        TextTransformer("L1_W16_A2", vocab_size=50, context_length=8),
        visual_head=lambda width: ProjectionHead(width, 12),
        textual_head=lambda width: ProjectionHead(width, 12),
        geometry=Sphere(),
        scorer=Cosine(),
        query_pooling=(lambda *widths: QueryPooling(*widths, heads=2)) if pools else None,
    )


def learner(visual: ViT = ENCODERS["mean"]) -> Learner:
    torch.manual_seed(0)
    return Learner(model(visual()).double(), Objective({"pooled": Pooled(), "contrast": Contrastive()}))


def batch(rows: int = 6) -> dict[str, object]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (rows, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return {**tiny_batch(rows), "image": image}


def gradients(module: Learner, micro_batch: int | None) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    cache = None if micro_batch is None else GradCache(micro_batch)
    forward_backward(module, batch(), cache=cache, precision=FULL, scaler=FULL.make_scaler())
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ENCODERS)
def test_tokens_give_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    expected = encoder(images)
    tokens = encoder(images, "tokens")
    assert tokens.shape[1] - encoder.prefix_tokens == (16 if "timm" not in name else 4)
    torch.testing.assert_close(encoder.read_out(tokens), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-12)  # afterwards, too


@pytest.mark.parametrize("name", ENCODERS)
def test_one_encoding_serves_both_and_can_be_cached(name: str) -> None:
    direct = learner(ENCODERS[name])
    calls = []
    direct.model.visual.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    expected = gradients(direct, None)
    assert len(calls) == 1
    assert {name for name, p in direct.named_parameters() if p.requires_grad} == expected.keys()
    cached = gradients(learner(ENCODERS[name]), 4)
    assert cached.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(cached[key], gradient, rtol=1e-9, atol=1e-12, msg=key)


def test_evaluation_never_pools() -> None:
    built = learner().model.eval()
    assert built.query_pooling is not None
    built.query_pooling.register_forward_hook(lambda *_: pytest.fail("pooled"))
    images, texts = built(torch.rand(2, 3, 32, 32, dtype=torch.float64), tiny_batch(2)["text"])
    assert images.shape == texts.shape == (2, 12)


def test_files_and_models_may_lack_the_pooling() -> None:
    with_it, without = model(ENCODERS["mean"]()), model(ENCODERS["mean"](), pools=False)
    report = load_weights(with_it, without.state_dict())
    assert report.missing and all(name.startswith("query_pooling.") for name in report.missing)
    assert not load_weights(without, with_it.state_dict()).differs
    assert all(torch.equal(t, with_it.state_dict()[name]) for name, t in without.state_dict().items())


def test_what_has_no_tokens_or_no_pooling_is_named() -> None:
    resnet = TimmImageEncoder("resnet18", image_size=32)
    with pytest.raises(
        ValueError, match="visual: a TimmImageEncoder has no tokens of patches; take a vision"
    ):
        resnet(torch.zeros(1, 3, 32, 32), "tokens")
    with pytest.raises(ValueError, match="output: got 'token'; expected 'features' or 'tokens'"):
        resnet(torch.zeros(1, 3, 32, 32), "token")
    objective = Objective({"pooled": Pooled()})
    bare = Learner(model(ENCODERS["mean"](), pools=False), objective)
    with pytest.raises(ValueError, match=r"model\.query_pooling: is null, but the objective pools images"):
        bare(batch())
    with pytest.raises(ValueError, match=r"query_pooling\.heads: got 5; expected a divisor of the width 16"):
        DualEncoder(
            ENCODERS["mean"](),
            TextTransformer("L1_W16_A2", vocab_size=50, context_length=8),
            visual_head=lambda width: ProjectionHead(width, 12),
            textual_head=lambda width: ProjectionHead(width, 12),
            geometry=Sphere(),
            scorer=Cosine(),
            query_pooling=lambda *widths: QueryPooling(*widths, heads=5),
        )
    ctx = PairContext({}, batch={}, model=bare.model)
    with pytest.raises(ValueError, match="view image:crop@student: the output of its encoder is not there"):
        ctx.trunk(View("image", "crop"))
