"""The small transformer with a convolutional stem."""

from typing import Any

import pytest
import torch

from hypvl.encoders.conv_vit import ConvStemViT, conv_stem


def tiny(**options: Any) -> ConvStemViT:
    torch.manual_seed(0)
    return ConvStemViT(32, 2, **({"heads": 2, "image_size": 32, "patch_size": 8} | options))


IMAGES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pool", ["mean", "class_token"])
def test_features_do_not_depend_on_the_batch(pool: str) -> None:
    model = tiny(pool=pool).double()
    together = model(IMAGES)
    alone = torch.cat([model(image[None]) for image in IMAGES])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert together.shape == (3, model.width) == (3, 32)


def test_features_depend_on_where_things_are() -> None:
    model = tiny(pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    image = torch.zeros(1, 3, 32, 32)
    image[..., 8:16, 8:16] = 1.0
    moved = image.roll((8, 8), (2, 3))
    assert (model(image) - model(moved)).abs().max() > 1e-3
    with torch.no_grad():
        model.pos_embed.zero_()
    # Without positions only the zero borders of the convolutions tell the two apart.
    assert torch.allclose(model(image), model(moved), atol=2e-2)


@pytest.mark.parametrize(("pool", "count"), [("mean", 16), ("class_token", 17)])
def test_pools_normalised_tokens(pool: str, count: int) -> None:
    model = tiny(pool=pool).double()
    tokens: list[torch.Tensor] = []
    handle = model.norm.register_forward_hook(lambda _m, _x, y: tokens.append(y))
    features = model(IMAGES)
    handle.remove()
    assert tokens[0].shape == (3, count, 32)
    expected = tokens[0].sum(dim=1) / 16 if pool == "mean" else tokens[0][:, 0]
    torch.testing.assert_close(features, expected)


def test_positions_are_frozen_and_everything_else_learns() -> None:
    for pool in ("mean", "class_token"):
        model = tiny(pool=pool)
        model(IMAGES).square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == ["pos_embed"]
        assert not model.pos_embed.requires_grad


@pytest.mark.parametrize(("patch", "channels"), [(2, [128]), (8, [32, 64, 128]), (16, [16, 32, 64, 128])])
def test_stem_doubles_its_channels(patch: int, channels: list[int]) -> None:
    stem = conv_stem(128, patch)
    assert [m.out_channels for m in stem if isinstance(m, torch.nn.Conv2d)] == [*channels, 128]
    assert stem(torch.zeros(1, 3, 32, 32)).shape == (1, 128, 32 // patch, 32 // patch)


def test_grad_checkpointing_gives_the_same_gradients() -> None:
    direct, recomputed = tiny().double(), tiny(grad_checkpointing=True).double()
    for model in (direct, recomputed):
        model(IMAGES).square().sum().backward()
    for p, q in zip(direct.parameters(), recomputed.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-12)


def test_drop_path_is_off_in_eval() -> None:
    model = tiny(drop_path_rate=0.5)
    model.eval()
    assert torch.equal(model(IMAGES), model(IMAGES))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 12}, "power of two"),
        ({"patch_size": 1}, "power of two"),
        ({"image_size": 30}, "image_size 30"),
        ({"heads": 3}, "multiple of"),
        ({"heads": 0}, "heads: got 0; expected a whole number of at least 1"),
        ({"pool": "max"}, "pool: got 'max'; expected 'mean' or 'class_token'"),
        ({"drop_path_rate": 1.0}, "drop_path_rate: got 1.0; .* below 1"),
    ],
)
def test_sizes_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
