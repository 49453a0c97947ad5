"""open_clip's names and ours, both ways, and its own models against ours."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.errors import CheckpointError
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.convert import is_open_clip
from hypvl.models.convert.open_clip import PIXEL_MEAN, PIXEL_STD, to_hypvl, to_open_clip
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights

Layout = Literal["clip", "custom_text"]
SIZES: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
    "text_cfg": {"context_length": 9, "vocab_size": 60, "width": 24, "heads": 2, "layers": 2},
}


def theirs(layout: Layout, *, quick: bool = True, bias: float | None = None) -> nn.Module:
    """open_clip's own model with random weights, larger than at the start so that every part matters."""
    from open_clip.model import CLIP, CustomTextCLIP

    torch.manual_seed(0)
    model = {"clip": CLIP, "custom_text": CustomTextCLIP}[layout](
        **SIZES, quick_gelu=quick, init_logit_bias=bias
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model.eval()


def ours(
    *, quick: bool = True, bias: float | None = None, hyperbolic: bool = False, **visual: Any
) -> DualEncoder:
    """The same sizes, built of our parts, with other random weights."""
    torch.manual_seed(1)
    sizes = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return DualEncoder(
        TimmImageEncoder(
            f"vit_base_patch32_clip_{'quickgelu_' if quick else ''}224",
            image_size=16,
            position="learned",
            timm_args=sizes,
            **visual,
        ),
        TextTransformer(
            "L2_W24_A2", vocab_size=60, context_length=9, activation="quick_gelu" if quick else "gelu"
        ),
        visual_head=lambda width: ProjectionHead(width, 12),
        textual_head=lambda width: ProjectionHead(width, 12),
        geometry=Lorentz() if hyperbolic else Sphere(),
        scorer=Cosine(bias_init=bias),
    ).eval()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return theirs("clip").state_dict()


@pytest.mark.parametrize("layout", ["clip", "custom_text"])
@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_encodes_as_open_clip_does(layout: Layout, quick: bool) -> None:
    other, model = theirs(layout, quick=quick), ours(quick=quick)
    report = load_weights(model, other.state_dict())
    assert not report.differs
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    tokens = torch.tensor([[58, 5, 59, 0, 0, 0, 0, 0, 0], [58, 7, 7, 3, 2, 4, 9, 1, 59], [58, 59] + [0] * 7])
    pairs = [
        (model.encode_image(images, stage="features"), other.encode_image((images - mean) / std)),  # type: ignore[operator]
        (model.encode_text(tokens, stage="features"), other.encode_text(tokens)),  # type: ignore[operator]
        (model.encode_image(images), other.encode_image((images - mean) / std, normalize=True)),  # type: ignore[operator]
        (model.encode_text(tokens[:, :9]), other.encode_text(tokens, normalize=True)),  # type: ignore[operator]
    ]
    for result, wanted in pairs:
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)
    assert model.scorer.log_scale == other.logit_scale


def test_another_gelu_would_be_noticed() -> None:
    """The file does not say which it was: only the model definition does."""
    other, model = theirs("clip", quick=True), ours(quick=False)
    load_weights(model, other.state_dict())
    tokens = torch.tensor([[58, 5, 6, 7, 59]])
    wanted = other.encode_text(torch.nn.functional.pad(tokens, (0, 4)))  # type: ignore[operator]
    assert (model.encode_text(tokens, stage="features") - wanted).abs().max() > 1e-3


def test_names_by_hand(state: dict[str, Tensor]) -> None:
    converted = to_hypvl(state)
    for name, original, change in (
        ("scorer.log_scale", "logit_scale", lambda t: t),
        ("visual.trunk.cls_token", "visual.class_embedding", lambda t: t.view(1, 1, 32)),
        ("visual.trunk.pos_embed", "visual.positional_embedding", lambda t: t.view(1, 5, 32)),
        ("visual.trunk.patch_embed.proj.weight", "visual.conv1.weight", lambda t: t),
        ("visual.trunk.norm_pre.bias", "visual.ln_pre.bias", lambda t: t),
        (
            "visual.trunk.blocks.1.attn.qkv.weight",
            "visual.transformer.resblocks.1.attn.in_proj_weight",
            lambda t: t,
        ),
        (
            "visual.trunk.blocks.0.mlp.fc2.bias",
            "visual.transformer.resblocks.0.mlp.c_proj.bias",
            lambda t: t,
        ),
        ("visual.trunk.norm.weight", "visual.ln_post.weight", lambda t: t),
        ("visual_head.projection.weight", "visual.proj", lambda t: t.T),
        ("textual.posit_embed", "positional_embedding", lambda t: t),
        ("textual.resblocks.1.ln_2.weight", "transformer.resblocks.1.ln_2.weight", lambda t: t),
        ("textual_head.projection.weight", "text_projection", lambda t: t.T),
    ):
        assert torch.equal(converted[name], change(state[original])), name
    assert converted["visual.pixel_mean"].flatten().tolist() == pytest.approx(PIXEL_MEAN, abs=1e-7)
    assert set(converted) == set(ours().state_dict())


# Their name in a file -> ours; of ResNets, of timm's image encoders, of text projections with a bias.
OTHER_NAMES = {
    "visual.conv1.weight": "visual.trunk.stem.conv1.conv.weight",
    "visual.bn3.running_mean": "visual.trunk.stem.conv3.bn.running_mean",
    "visual.layer1.0.conv1.weight": "visual.trunk.stages.0.0.conv1_1x1.conv.weight",
    "visual.layer4.2.bn3.bias": "visual.trunk.stages.3.2.conv3_1x1.bn.bias",
    "visual.layer2.0.downsample.0.weight": "visual.trunk.stages.1.0.shortcut.conv.conv.weight",
    "visual.layer2.0.downsample.1.running_var": "visual.trunk.stages.1.0.shortcut.conv.bn.running_var",
    "visual.attnpool.positional_embedding": "visual.trunk.head.pos_embed",
    "visual.attnpool.q_proj.bias": "visual.trunk.head.q.bias",
    "visual.attnpool.c_proj.bias": "visual_head.projection.bias",
}
TIMM_NAMES = {
    "visual.trunk.stages.0.blocks.0.gamma": "visual.trunk.stages.0.blocks.0.gamma",
    "visual.trunk.head.norm.weight": "visual.trunk.head.norm.weight",
    "visual.trunk.head.weight": "visual_head.projection.weight",
    "visual.trunk.head.fc.bias": "visual_head.projection.bias",
    "visual.head.proj.weight": "visual_head.projection.weight",
    "visual.head.mlp.fc2.weight": "visual_head.fc2.weight",
    "text.text_projection.weight": "textual_head.projection.weight",
    "text.text_projection.bias": "textual_head.projection.bias",
    "text.token_embedding.weight": "textual.token_embed.weight",
}


@pytest.mark.parametrize("names", [OTHER_NAMES, TIMM_NAMES], ids=["ResNet", "timm"])
def test_names_of_other_encoders_by_hand(names: dict[str, str]) -> None:
    for theirs_, mine in names.items():
        tensor = torch.rand(2, 3)
        others = {key: torch.zeros(2, 3) for key in names if names[key] != mine}
        converted = to_hypvl({**others, theirs_: tensor}, wanted={})
        assert torch.equal(converted[mine], tensor), theirs_  # a linear layer, never transposed


@pytest.mark.parametrize("layout", ["clip", "custom_text"])
@pytest.mark.parametrize("bias", [None, -10.0])
def test_there_and_back_bit_for_bit(layout: Layout, bias: float | None) -> None:
    state = theirs(layout, bias=bias).state_dict()
    back = to_open_clip(to_hypvl(state), layout=layout)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    model = ours(bias=bias)
    load_weights(model, state)
    theirs(layout, bias=bias).load_state_dict(to_open_clip(model.state_dict(), layout=layout))


def test_what_published_files_have_beside_it(state: dict[str, Tensor]) -> None:
    """DDP's prefix, OpenAI's notes, a mask, half precision, a scale of shape (1,), a second table of positions."""
    plain = to_hypvl(state)
    extra = {
        "input_resolution": torch.tensor(16),
        "context_length": torch.tensor(9),
        "vocab_size": torch.tensor(60),
        "attn_mask": torch.full((9, 9), -torch.inf).triu(1),
    }
    whole = {**state, **extra, "logit_scale": state["logit_scale"].view(1)}
    converted = to_hypvl({f"module.{key}": tensor for key, tensor in whole.items()})
    assert is_open_clip({f"module.{key}": tensor for key, tensor in whole.items()})
    assert converted.keys() == plain.keys()
    assert all(torch.equal(converted[key], plain[key]) for key in plain)
    half = to_hypvl({key: tensor.half() for key, tensor in state.items()})
    load_weights(ours(), half)
    two = to_hypvl({**state, "positional_embedding_res": state["positional_embedding"]})
    assert torch.equal(two["textual.posit_embed_res"], plain["textual.posit_embed"])
    other_pixels = to_hypvl(state, pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5))
    assert other_pixels["visual.pixel_std"].flatten().tolist() == [0.5, 0.5, 0.5]


def test_whose_names_they_are(state: dict[str, Tensor]) -> None:
    assert is_open_clip(state)
    assert not is_open_clip(ours().state_dict())
    assert not is_open_clip({"logit_scale": torch.zeros(()), "visual.cls_token": torch.zeros(1, 1, 2)})


def test_other_architectures_are_refused_by_name(state: dict[str, Tensor]) -> None:
    coca = {key: tensor for key, tensor in state.items() if not key.startswith("visual.class")}
    coca["visual.attn_pool.query"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"missing visual.class_embedding; unexpected visual.attn_pool"):
        to_hypvl(coca)
    with pytest.raises(CheckpointError, match=r"unexpected visual.transformer.resblocks.0.attn.ln_q.weight"):
        to_hypvl({**state, "visual.transformer.resblocks.0.attn.ln_q.weight": torch.zeros(32)})
    texts = {key: tensor for key, tensor in state.items() if not key.startswith("visual.")}
    with pytest.raises(
        CheckpointError, match=r"unexpected visual.layer1.0.scale; expected a CLIP of open_clip"
    ):
        to_hypvl({**texts, "visual.layer1.0.scale": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"attn_mask: \(9, 9\), not the causal mask"):
        to_hypvl({**state, "attn_mask": torch.zeros(9, 9)})


def test_models_that_open_clip_cannot_hold_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"geometry.log_curv have no name in open_clip"):
        to_open_clip(ours(hyperbolic=True).state_dict())
    state = ours().state_dict()  # built with ImageNet's pixels
    with pytest.raises(CheckpointError, match=r"visual.pixel_mean: \[0.48.* cannot say otherwise"):
        to_open_clip(state)
    with pytest.raises(ValueError, match="layout: got 'hf'"):
        to_open_clip(state, layout="hf")  # type: ignore[arg-type]  # wrong on purpose


def test_files_of_open_clip_runs_and_bare_ones(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "run.pt")
    torch.save(state, tmp_path / "bare.pt")
    models = [ours(), ours()]
    for model, name in zip(models, ("run.pt", "bare.pt"), strict=True):
        assert not load_weights(model, tmp_path / name).differs
    assert load_checkpoint(tmp_path / "run.pt")["epoch"] == 3
    for one, other in zip(*(m.state_dict().values() for m in models), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:.*TorchScript archive")
def test_torchscript_archives_are_refused_and_explained(tmp_path: Path) -> None:
    archive = torch.jit.script(nn.Linear(2, 2))
    archive.save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(CheckpointError, match=r"ViT-B-32.pt: a TorchScript archive, which holds code"):
        load_checkpoint(tmp_path / "ViT-B-32.pt")


def test_only_what_is_allowed_may_be_missing(state: dict[str, Tensor]) -> None:
    with pytest.raises(
        CheckpointError, match=r"without a curvature in the file.*1 missing: geometry.log_curv"
    ):
        load_weights(ours(hyperbolic=True), state)
    report = load_weights(ours(hyperbolic=True), state, allow_missing=["geometry.*"])
    assert report.missing == ("geometry.log_curv",)
    assert report.differs
    lacking = to_hypvl(state)
    del lacking["visual.trunk.norm.weight"]
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: 1 missing: visual.trunk.norm.weight\.$"
    ):
        load_weights(ours(hyperbolic=True), lacking, allow_missing=["geometry.*"])
    with pytest.raises(CheckpointError, match=r"1 unexpected: scorer.bias"):
        load_weights(
            ours(hyperbolic=True),
            {**to_hypvl(state), "scorer.bias": torch.zeros(())},
            allow_missing=["geometry.*"],
        )
    with pytest.raises(ValueError, match=r"allow_missing: 'geometri\.\*' names nothing in the model"):
        load_weights(ours(hyperbolic=True), state, allow_missing=["geometri.*"])
