"""Published names and ours, both ways."""

import pytest
import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import listed
from hypvl.models.convert.meru import naming, to_hypvl, to_official


def official(*, hyperbolic: bool = True, context: int = 5) -> dict[str, Tensor]:
    """A tiny checkpoint with the published names; every tensor has values of its own."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"logit_scale": ()}
    if hyperbolic:
        shapes |= {"curv": (), "visual_alpha": (), "textual_alpha": ()}
    shapes |= {
        "pixel_mean": (3, 1, 1),
        "pixel_std": (3, 1, 1),
        "visual.cls_token": (1, 1, 4),
        "visual.blocks.0.attn.qkv.weight": (12, 4),
        "textual.posit_embed": (context, 6),
    }
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state["textual.attn_mask"] = torch.tensor(
        [[key > query for key in range(context)] for query in range(context)]
    )
    for name, shape in (
        ("textual.token_embed.weight", (9, 6)),
        ("textual.resblocks.0.ln_1.weight", (6,)),
        ("visual_proj.weight", (2, 4)),
        ("textual_proj.weight", (2, 6)),
    ):
        state[name] = torch.randn(shape, generator=generator)
    return state


def test_every_name_by_hand() -> None:
    state = official()
    expected = {
        "scorer.log_scale": "logit_scale",
        "geometry.log_curv": "curv",
        "visual_head.log_scale": "visual_alpha",
        "textual_head.log_scale": "textual_alpha",
        "visual.pixel_mean": "pixel_mean",
        "visual.pixel_std": "pixel_std",
        "visual.trunk.cls_token": "visual.cls_token",
        "visual.trunk.blocks.0.attn.qkv.weight": "visual.blocks.0.attn.qkv.weight",
        "textual.posit_embed": "textual.posit_embed",
        "textual.token_embed.weight": "textual.token_embed.weight",
        "textual.resblocks.0.ln_1.weight": "textual.resblocks.0.ln_1.weight",
        "visual_head.projection.weight": "visual_proj.weight",
        "textual_head.projection.weight": "textual_proj.weight",
    }
    ours = to_hypvl(state)
    assert set(ours) == set(expected)
    for name, published in expected.items():
        assert ours[name] is state[published], name  # the same tensor: nothing is copied, cast or recomputed


@pytest.mark.parametrize("hyperbolic", [True, False])
def test_there_and_back_is_the_same_bit_for_bit_and_in_order(hyperbolic: bool) -> None:
    state = official(hyperbolic=hyperbolic)
    back = to_official(to_hypvl(state))
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


def test_converting_twice_changes_nothing() -> None:
    ours = to_hypvl(official())
    assert to_hypvl(ours) == ours
    published = to_official(ours)
    assert list(to_official(published)) == list(published)


def test_names_say_whose_they_are() -> None:
    for hyperbolic in (True, False):
        state = official(hyperbolic=hyperbolic)
        assert naming(state) == "official"
        assert naming(to_hypvl(state)) == "hypvl"


def test_a_model_saved_inside_ddp_loses_its_prefix() -> None:
    state = official()
    wrapped = {"module." + name: tensor for name, tensor in state.items()}
    assert to_hypvl(wrapped).keys() == to_hypvl(state).keys()


def test_both_namings_are_ambiguous() -> None:
    state = {**official(), "scorer.log_scale": torch.zeros(())}
    with pytest.raises(CheckpointError, match=r"ambiguous.*logit_scale.*scorer\.log_scale"):
        to_hypvl(state)


def test_foreign_names_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"open_clip"):
        naming({"visual.class_embedding": torch.zeros(1), "token_embedding.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"fc\.weight.*expected the names"):
        naming({"fc.weight": torch.zeros(1)})


def test_half_a_hyperbolic_model_lists_what_is_missing_and_unexpected() -> None:
    state = official()
    del state["visual_alpha"], state["textual_proj.weight"]
    state["queue"] = torch.zeros(1)
    with pytest.raises(
        CheckpointError, match=r"missing textual_proj\.weight, visual_alpha; unexpected queue"
    ):
        to_hypvl(state)


def test_a_mask_that_is_not_causal_is_refused() -> None:
    state = official()
    state["textual.attn_mask"] = torch.zeros(5, 5, dtype=torch.bool)
    with pytest.raises(CheckpointError, match=r"textual\.attn_mask.*causal"):
        to_hypvl(state)


def test_a_part_without_a_published_name_cannot_be_exported() -> None:
    ours = {**to_hypvl(official()), "scorer.bias": torch.zeros(())}
    with pytest.raises(CheckpointError, match=r"scorer\.bias have no name"):
        to_official(ours)


def test_lists_are_bounded() -> None:
    assert listed([]) == "none"
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh", limit=2) == "a, b and 6 more"
