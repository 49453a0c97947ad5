"""The builder: options, what is saved, what is decayed, and a model whose towers are adapted."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import hypvl
from hypvl.config import LazyCall, LazyConfig, instantiate
from hypvl.encoders.adapters.methods import (
    METHODS,
    adapted,
    adapter_state_dict,
    load_adapter_state_dict,
    merge_adapters,
)
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.text import TextTransformer
from hypvl.errors import CheckpointError
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.convert.meru import to_official
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights
from hypvl.training.optim import parameter_groups
from tests.encoders.adapters.hosts import HOSTS, OPTIONS, make, shaken

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def dual(method: str | None) -> DualEncoder:
    adapter = None if method is None else partial(adapted, method=method, options=OPTIONS.get(method))
    head = partial(ProjectionHead, out_features=16)
    torch.manual_seed(0)
    return DualEncoder(
        make("timm").float(),
        make("text").float(),
        visual_head=head,
        textual_head=head,
        geometry=Sphere(),
        scorer=Cosine(log_scale_init=1.0),
        visual_adapter=adapter,
        textual_adapter=adapter,
    )


def test_a_config_names_it() -> None:
    text = LazyCall(TextTransformer)(arch="L2_W32_A4", vocab_size=50, context_length=16)
    node = LazyCall(adapted)(encoder=text, method="lora_adapter", options={"rank": 3})
    encoder = instantiate(OmegaConf.create(node))
    assert isinstance(encoder, TextTransformer)
    assert (encoder.width, encoder.context_length, encoder.vocab_size, encoder.eot_token) == (32, 16, 50, 49)
    assert encoder.adapter.get_submodule("layer1.query").lora_A.shape == (3, 32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ["text", "timm"])
def test_adapter_weights_alone_are_saved_and_loaded(host: str, method: str, tmp_path: Path) -> None:
    encoder, x = shaken(adapted(make(host), method, options=OPTIONS.get(method))), HOSTS[host].inputs()
    torch.save(adapter_state_dict(encoder), tmp_path / "adapter.pth")
    state = torch.load(tmp_path / "adapter.pth", weights_only=True)
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert state.keys() == trained.keys()
    assert all(name.startswith("adapter.") for name in state)
    shared = [name for name in state if name.endswith("phm_rule") or "prefix.mlp1.weight" in name]
    assert len(shared) == (method in ("dummy", "prefix_tuning", "mam_adapter", "unipelt"))
    other = adapted(make(host), method, options=OPTIONS.get(method))
    with torch.no_grad():
        expected = encoder(x)
        assert not torch.equal(other(x), expected)
        load_adapter_state_dict(other, state)
        assert torch.equal(other(x), expected)


def test_weights_that_do_not_fit_change_nothing() -> None:
    encoder = adapted(make("text"), "ia3_adapter")
    state = {name: tensor + 1 for name, tensor in adapter_state_dict(encoder).items()}
    name = "adapter.layer0.key.scale"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != name}, f"state: it lacks {name}; expected the 6 adapter"),
        (state | {"adapter.x": state[name]}, "state: it has the unexpected adapter.x"),
        (state | {name: torch.ones(3, 1)}, rf"state: {name} is \(3, 1\); expected \(32, 1\) finite"),
        (state | {name: torch.full((32, 1), torch.nan)}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            load_adapter_state_dict(encoder, wrong)
    assert all((tensor == 1).all() for tensor in adapter_state_dict(encoder).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lora_adaptor"}, r"^method: got 'lora_adaptor'; .*the closest is 'lora_adapter'"),
        ({"method": "lora_adapter", "options": 8}, r"^options: got 8; expected a mapping of arguments of lora"),
        ({"method": "lora_adapter", "options": {"r": 8}}, r"^options: got 'r', which lora_adapter has not; .*rank, a"),
        ({"method": "ia3_adapter", "options": {"rank": 8}}, "expected some of none"),
        ({"method": "lora_adapter", "options": {"rank": 0}}, r"^options\.rank: got 0"),
        ({"method": "bottleneck_adapter", "options": {"reduction": 0}}, r"^options\.reduction: got 0"),
        ({"method": "bottleneck_adapter", "options": {"nonlinearity": "silu"}}, r"^options\.nonlinearity: got 'silu'"),
        ({"method": "lang_adapter", "options": {"invertible_reduction": 0}}, r"^options\.invertible_reduction: got"),
        ({"method": "prefix_tuning", "options": {"length": 0}}, r"^options\.length: got 0"),
        ({"method": "unipelt", "options": {"variant": "mean"}}, r"^options\.variant: got 'mean'"),
        ({"method": "dummy"}, r"^options\.reduction: the hypercomplex layers are 32 -> 1, but phm_dim 4"),
        ({"method": "dummy", "options": {"phm_rank": 0}}, r"^options\.phm_rank: got 0|^options\.reduction"),
        ({"method": "mam_adapter", "options": {"scale": float("nan")}}, r"^options\.scale: got nan"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted(make("text"), **arguments)


def test_an_adapted_encoder_takes_no_second_adapter() -> None:
    encoder = adapted(make("text"), "lora_adapter")
    with pytest.raises(ValueError, match="encoder: got one with an adapter"):
        adapted(encoder, "ia3_adapter")
    merge_adapters(encoder)
    adapted(encoder, "ia3_adapter")
    with pytest.raises(ValueError, match=r"^module: got TextTransformer without an adapter"):
        merge_adapters(make("text"))


@pytest.mark.parametrize("method", METHODS)
def test_biases_and_scales_are_not_decayed(method: str) -> None:
    encoder = adapted(make("text"), method, options=OPTIONS.get(method))
    groups = parameter_groups(encoder, weight_decay=0.2, gain_bias_decay=0.1)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            free = name.rpartition(".")[2] in ("bias", "b", "scale")
            assert decay.pop(id(parameter)) == (0.0 if free else 0.2), name
    assert not decay


@pytest.mark.parametrize("method", ["lora_adapter", "dummy", "unipelt"])
def test_three_steps_of_a_model(method: str) -> None:
    model = dual(method)
    model.visual_head.requires_grad_(False)
    model.textual_head.requires_grad_(False)
    images, tokens = HOSTS["timm"].inputs().float(), HOSTS["text"].inputs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses: list[Tensor] = []
    for _ in range(4):
        logits = model.scorer.logits(
            model.geometry, *model(images, tokens), query_modality="image", key_modality="text"
        )
        losses.append(nn.functional.cross_entropy(logits, torch.arange(3)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if ".adapter." in name} | {"scorer.log_scale"}
    assert model.image_size == 32 and model.visual.pixel_mean.shape == (3, 1, 1)


def test_a_plain_file_fits_when_the_adapter_may_be_missing() -> None:
    plain = dual(None)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.01)
    model = dual("lora_adapter")
    with pytest.raises(CheckpointError, match=r"16 missing: visual\.adapter\.layer0\.query\.lora_A"):
        load_weights(model, plain.state_dict())
    report = load_weights(model, plain.state_dict(), allow_missing=["*.adapter.*"])
    assert set(report.missing) == set(adapter_state_dict(model))
    images = HOSTS["timm"].inputs().float()
    with torch.no_grad():
        assert torch.equal(model.encode_image(images), plain.encode_image(images))
    own = {name: tensor + 0.1 for name, tensor in adapter_state_dict(model).items()}
    load_adapter_state_dict(model, own)
    with torch.no_grad():
        expected = model.encode_image(images)
        merge_adapters(model)
        merged = dual(None)
        load_weights(merged, model.state_dict())
        torch.testing.assert_close(merged.encode_image(images), expected, rtol=0, atol=1e-5)


def test_a_model_names_the_adapter_that_cannot_be_built() -> None:
    parts: dict[str, Any] = {
        "geometry": Sphere(),
        "scorer": Cosine(),
        "textual_head": partial(ProjectionHead, out_features=4),
    }
    with pytest.raises(ValueError, match=r"^textual_adapter\.options\.rank: got 0; expected"):
        DualEncoder(
            None,
            make("text"),
            textual_adapter=partial(adapted, method="lora_adapter", options={"rank": 0}),
            **parts,
        )
    with pytest.raises(ValueError, match=r"^visual_adapter: is set, but visual is null"):
        DualEncoder(None, make("text"), visual_adapter=partial(adapted, method="ia3_adapter"), **parts)


def test_published_names_have_none_for_adapters() -> None:
    model = dual("lora_adapter")
    with pytest.raises(
        CheckpointError, match=r"textual\.adapter\.layer0\.query\.lora_A.* have no name in published"
    ):
        to_official({k: v for k, v in model.state_dict().items() if not k.startswith("visual.adapter.")})
    assert "textual.resblocks.0.attn.in_proj_weight" in to_official(merge_adapters(model).state_dict())


def test_a_shared_folder_holds_the_adapter(tmp_path: Path) -> None:
    """Saved and loaded as data: the config names the builder, which the allow-list has."""
    config = LazyConfig.load(CONFIGS / "train_meru_from_clip_lora_demo.py")
    config.model.visual.update(width=32, depth=1, heads=2, image_size=32)
    config.model.textual.arch = "L1_W32_A2"
    model = hypvl.create_model(config)
    with torch.no_grad():
        for tensor in adapter_state_dict(model).values():
            tensor.add_(0.1)
    hypvl.save_pretrained(model, config, tmp_path)
    tokens = torch.tensor([[3, 4, 49407]])
    again = hypvl.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    assert set(adapter_state_dict(again)) == set(adapter_state_dict(model))
