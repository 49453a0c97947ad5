"""Published names of UNCHA, PHyCLIP and Hyper3-CLIP and ours, both ways, and files of another family."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.encoders.image_base import IMAGENET_MEAN
from hypvl.errors import CheckpointError
from hypvl.models.convert import hyper3, meru, phyclip, uncha
from hypvl.models.convert.published import family_of_file, family_of_model, to_hypvl, to_official
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights
from tests.models.convert.test_meru import official
from tests.models.test_loading_weights import build

SCALES = {"scorer.further_log_scales": {"local": math.log(20), "global_local": 2.8}}
PRODUCT = {
    "geometry": {"_target_": "hypvl.geometry.product.Product", "factors": 2, "factor_dim": 4},
    "visual_head.factors": 2,
    "textual_head.factors": 2,
}
HYPER3 = {
    **SCALES,
    "visual_head.bias": True,
    "textual_head.bias": True,
    "textual.activation": "quick_gelu",
    "geometry.clamp": "value",
    "query_pooling": {
        "_target_": "hypvl.encoders.query_pooling.QueryPooling",
        "_partial_": True,
        "heads": 2,
    },
}
CHANGES: dict[str, dict[str, Any]] = {"MERU": {}, "UNCHA": SCALES, "PHyCLIP": PRODUCT, "Hyper3-CLIP": HYPER3}


def model(family: str, *, seed: int = 0) -> DualEncoder:
    """A tiny model of a family whose every parameter differs from the others."""
    built = build(seed, **CHANGES[family])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return built


def published_uncha() -> dict[str, Tensor]:
    extra = {
        "global_logit_scale": torch.tensor(3.0),
        "global_local_logit_scale": torch.tensor(2.5),
        "local_logit_scale": torch.tensor(2.0),
        "textual.min_radius_head.0.weight": torch.ones(1, 6),
        "textual.min_radius_head.0.bias": torch.ones(1),
    }
    return {**official(), **extra}


def published_phyclip() -> dict[str, Tensor]:
    lists = {
        f"{name}.{i}": torch.tensor(10.0 * j + i) for j, name in enumerate(phyclip.FACTORS) for i in range(3)
    }
    return {**official(), **lists}


def test_uncha_by_hand() -> None:
    state = published_uncha()
    ours = to_hypvl(state)
    assert ours["scorer.log_scale"] is state["global_logit_scale"]  # the trained one, not logit_scale
    assert ours["scorer.log_scale_local"] is state["local_logit_scale"]
    assert ours["scorer.log_scale_global_local"] is state["global_local_logit_scale"]
    assert ours["visual.pixel_mean"] is state["pixel_mean"] and "logit_scale" not in ours
    assert not [name for name in ours if "min_radius_head" in name]
    back = to_official(ours)
    order = ["logit_scale", "global_logit_scale", "global_local_logit_scale", "local_logit_scale", "curv"]
    assert list(back)[:5] == order and back.keys() == state.keys()
    assert back["logit_scale"].item() == pytest.approx(math.log(1 / 0.07))
    assert uncha.to_official(back) == back and to_hypvl(ours) == ours
    del state["local_logit_scale"]
    with pytest.raises(CheckpointError, match="missing local_logit_scale; expected the three logit scales"):
        to_hypvl(state)


def test_phyclip_by_hand() -> None:
    state = published_phyclip()
    ours = to_hypvl(state)
    assert ours["geometry.log_curv"].tolist() == [0.0, 1.0, 2.0]
    assert ours["visual_head.log_scale"].tolist() == [10.0, 11.0, 12.0]
    assert ours["textual_head.log_scale"].tolist() == [20.0, 21.0, 22.0]
    back = to_official(ours)
    assert back.keys() == state.keys() and list(back)[-1] == "textual_concept_alphas.2"
    assert all(torch.equal(back[f"curvs.{i}"], state[f"curvs.{i}"]) for i in range(3))
    # MERU's scalars, which nothing uses: the values that the published model starts with, for 2 components.
    assert (back["curv"].item(), back["visual_alpha"].item()) == (0.0, pytest.approx(-0.5 * math.log(2)))
    with pytest.raises(CheckpointError, match="a curvature for each of 3 factors; expected a CLIP, MERU"):
        meru.to_official(ours)
    with pytest.raises(
        CheckpointError, match=r"missing curvs\.1; expected a curvature and two scales for each"
    ):
        to_hypvl({key: t for key, t in state.items() if key != "curvs.1"})
    with pytest.raises(CheckpointError, match=r"curvs\.0 have dimensions; expected 0-dim scalars"):
        to_hypvl({**state, "curvs.0": torch.zeros(1)})


def test_a_product_with_one_scale_has_no_published_names() -> None:
    state = build(**{key: value for key, value in PRODUCT.items() if "head" not in key}).state_dict()
    with pytest.raises(CheckpointError, match="expected a PHyCLIP model, with a curvature and two scales"):
        to_official(state)


@pytest.mark.parametrize("family", CHANGES)
def test_a_model_exported_and_loaded_again_is_the_same(family: str) -> None:
    trained, other = model(family, seed=1), model(family, seed=2)
    file = to_official(trained.state_dict())
    assert family_of_file(file) is family_of_model(trained.state_dict())
    assert not load_weights(other, {"model": file}).differs
    assert all(torch.equal(t, trained.state_dict()[name]) for name, t in other.state_dict().items())


def test_hyper3_text_names_of_both_versions_give_the_features_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    trained = model("Hyper3-CLIP")
    config = transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=64, intermediate_size=256, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=9, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        bos_token_id=48, eos_token_id=49, pad_token_id=1,
    )  # fmt: skip
    theirs = transformers.CLIPTextModel(config).eval()
    weights = {name.removeprefix("text_model."): t for name, t in theirs.state_dict().items()}
    tokens = torch.tensor([[48, 3, 49, 0], [48, 5, 6, 49]])
    with torch.no_grad():
        expected = theirs(input_ids=tokens).pooler_output
    for prefix in ("text_encoder.backbone.", "text_encoder.backbone.text_model."):
        file = {
            key: t for key, t in to_official(trained.state_dict()).items() if not key.startswith("text_enc")
        }
        file |= {prefix + name: t for name, t in weights.items()}
        file[f"{prefix}embeddings.position_ids"] = torch.arange(9)[None]  # of earlier versions
        assert not load_weights(trained, file).differs
        with torch.no_grad():
            torch.testing.assert_close(
                trained.encode_text(tokens, stage="trunk"), expected, rtol=0, atol=1e-5
            )
    both = {**file, "text_encoder.backbone.final_layer_norm.bias": weights["final_layer_norm.bias"]}
    with pytest.raises(
        CheckpointError, match=r"final_layer_norm\.bias stands there twice, with text_model\. and"
    ):
        to_hypvl(both)


def test_hyper3_without_its_pooling_and_with_pixels_of_its_own() -> None:
    """Pooling is for training: a file may lack it, and a model may. ImageNet's pixels are no part of a file."""
    trained = model("Hyper3-CLIP", seed=1)
    file = to_official(trained.state_dict())
    assert not any(name.startswith("pixel") for name in file)
    assert to_hypvl(file)["visual.pixel_mean"].flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    without = build(3, **{key: value for key, value in HYPER3.items() if key != "query_pooling"})
    assert not load_weights(without, file).differs
    parts = {key: t for key, t in file.items() if not key.startswith(hyper3.POOLING)}
    load_weights(model("Hyper3-CLIP", seed=2), parts)
    with torch.no_grad():
        trained.visual.pixel_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    with pytest.raises(
        CheckpointError, match=r"visual\.pixel_mean: got \[0\.5, .*, expected ImageNet's \[0\.485"
    ):
        to_official(trained.state_dict())


def test_hyper3_says_what_is_missing_and_unexpected() -> None:
    file = to_official(model("Hyper3-CLIP").state_dict())
    del file["text_encoder.backbone.encoder.layers.0.self_attn.q_proj.bias"], file["log_curv"]
    words = r"missing log_curv, text_encoder\.backbone\.encoder\.layers\.0\.self_attn\.q_proj\.bias; unexpected queue"
    with pytest.raises(CheckpointError, match=words):
        to_hypvl({**file, "queue": torch.zeros(1)})


@pytest.mark.parametrize("built", CHANGES)
@pytest.mark.parametrize("filed", CHANGES)
def test_a_file_of_another_family_is_one_sentence(filed: str, built: str) -> None:
    if filed == built:
        return
    theirs = "CLIP, MERU" if filed == "MERU" else filed
    with pytest.raises(
        CheckpointError, match=f"checkpoint: does not fit the model: a checkpoint of {theirs}.*, not of "
    ) as caught:
        load_weights(model(built), {"model": to_official(model(filed).state_dict())})
    assert "or give another file" in str(caught.value) and len(str(caught.value)) < 700


def test_the_earlier_hub_model_is_told_from_that_of_the_paper() -> None:
    changes = {**HYPER3, "scorer.further_log_scales": None, "query_pooling": None}
    earlier = build(1, **changes, **{"visual.position": "learned"}).state_dict()
    file = to_official(earlier)
    assert "logit_scale" in file and "global_logit_scale" not in file
    again = build(2, **changes, **{"visual.position": "learned"})
    assert not load_weights(again, file).differs
    with pytest.raises(
        CheckpointError, match=r"of the hub, v1 \(one logit scale\), not of Hyper3-CLIP; build hyper3clip_v1"
    ):
        load_weights(model("Hyper3-CLIP"), file)


def test_weights_of_another_family_still_fit_where_names_are_allowed_to_be_missing() -> None:
    """UNCHA from a HyCoCLIP: its two further scales are new."""
    start = to_official(model("MERU").state_dict())
    report = load_weights(model("UNCHA", seed=3), start, allow_missing=["scorer.log_scale_*"])
    assert report.missing == ("scorer.log_scale_local", "scorer.log_scale_global_local")
    assert uncha.is_uncha(to_official(model("UNCHA").state_dict()))
