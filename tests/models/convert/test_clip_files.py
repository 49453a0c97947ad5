"""Files of PAC-S, CyCLIP, CE-CLIP, CLOOB, ProtoCLIP, Long-CLIP and I0T in their layouts, against open_clip itself."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

import hypvl
from hypvl.errors import CheckpointError
from hypvl.models.convert import clip_files
from hypvl.models.hub import build_model, load_config
from tests.evaluation.miniatures import sugarcrepe
from tests.evaluation.smoke import ROOT, inside
from tests.models.test_open_clip import theirs, tiny_resnet_clip

State = dict[str, Tensor]
TOKENS = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
CLIP_CONFIG: dict[str, Any] = {"embed_dim": 12, "text_cfg": TOKENS, "quick_gelu": True}


@dataclass(frozen=True)
class Published:
    """A published file, reduced: its name, the definition it is loaded with, and its layout."""

    file: str
    definition: str  # of the zoo
    layout: Callable[[State], dict[str, Any]]
    vision: dict[str, Any]
    quick_gelu: bool = True
    tokens: int = 77


def trained(state: State) -> dict[str, Any]:
    """As trainers on top of open_clip write it, on several GPUs."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    parts = {"epoch": 5, "name": "run", "optimizer": optimizer.state_dict(), "scaler": {"scale": 65536.0}}
    return {**parts, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}


def cloob(state: State) -> dict[str, Any]:
    return trained({name.replace("logit_scale", "logit_inv_tau"): tensor for name, tensor in state.items()})


def proto_clip(state: State) -> dict[str, Any]:
    head = nn.Sequential(nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 8)).state_dict()
    heads = {f"{part}_projection_head.{k}": v for part in ("image", "text") for k, v in head.items()}
    return trained({**state, **heads, "logit_scale_proto": torch.tensor(2.0)})


def half(state: State) -> dict[str, Any]:
    """PAC-S: OpenAI's model on a GPU, in half precision."""
    return {"state_dict": {name: tensor.half() for name, tensor in state.items()}}


def long_clip(state: State) -> State:
    """A second table of positions, of another 248."""
    table = state["positional_embedding"]
    return {**state, "positional_embedding_res": table + 0.3 * torch.randn_like(table)}


def i0t(state: State) -> dict[str, Any]:
    norms = {}
    for part in ("image", "text"):
        norm = nn.BatchNorm1d(12)
        norm(F.normalize(torch.randn(40, 12) + torch.randn(12)))
        nn.init.normal_(norm.weight, 1.0, 0.2)
        nn.init.normal_(norm.bias, 0.0, 0.02)
        norms |= {f"bn_final_{part}.{name}": tensor for name, tensor in norm.state_dict().items()}
    return long_clip(state) | norms


FILES = {
    "PAC-S": Published("clip_ViT-B-32.pth", "pacs_vit_b_32", half, VIT),
    "CyCLIP": Published("best.pt", "cyclip_rn50", trained, RESNET),
    "CE-CLIP": Published("epoch_5.pt", "ceclip_vit_b_32", trained, VIT),
    "CLOOB": Published("cloob_rn50_yfcc_epoch_28.pt", "cloob_rn50", cloob, RESNET),
    "CLOOB x4": Published("cloob_rn50x4_yfcc_epoch_28.pt", "cloob_rn50x4", cloob, RESNET),
    "ProtoCLIP": Published("protoclip.pt", "protoclip_rn50", proto_clip, RESNET, quick_gelu=False),
    "Long-CLIP": Published("longclip-B-32.pt", "longclip_vit_b_32", long_clip, VIT, tokens=248),
    "Long-CLIP B/16": Published("longclip-B.pt", "longclip_vit_b_16", long_clip, VIT, tokens=248),
    "Long-CLIP L/14": Published("longclip-L.pt", "longclip_vit_l_14", long_clip, VIT, tokens=248),
    "I0T": Published("i0t_async.pt", "i0t_async_vit_b_32", i0t, VIT, tokens=248),
}  # fmt: skip


def small(name: str) -> dict[str, Any]:
    """A definition of the zoo with the sizes of the test; everything else of it stays."""
    model: Any = OmegaConf.to_container(load_config(name).model)
    assert tiny_resnet_clip.__name__ == "tiny_resnet_clip"  # registered with timm by its import
    if model["visual"]["arch"].startswith("resnet"):
        model["visual"] |= {"arch": "tiny_resnet_clip", "image_size": 64}
    else:
        sizes = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
        model["visual"] |= {"image_size": 16, "timm_args": sizes}
    model["textual"]["arch"] = "L2_W24_A2"
    model["visual_head"]["out_features"] = model["textual_head"]["out_features"] = 12
    return {"model": model}


def written(family: str, folder: Path) -> tuple[nn.Module, dict[str, Any], Path]:
    """open_clip's model, the content of the file of its weights, and the file."""
    given = FILES[family]
    config = copy.deepcopy({**CLIP_CONFIG, "vision_cfg": given.vision, "quick_gelu": given.quick_gelu})
    config["text_cfg"]["context_length"] = given.tokens
    other = theirs(config)
    content = given.layout(dict(other.state_dict()))
    torch.save(content, folder / given.file)
    return other, content, folder / given.file


@torch.no_grad()
def reference(
    other: Any, content: dict[str, Any], images: Tensor, tokens: Tensor, *, pixels: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Unit embeddings of images in [0, 1] and of tokens by open_clip, and what the family does besides."""
    if (table := content.get("positional_embedding_res")) is not None:
        other.positional_embedding[20:] = table[20:]  # the first 20 positions are the first table's
    if next(iter(content.get("state_dict", {"": torch.zeros(0)}).values())).dtype == torch.half:
        other = other.half().float()
    image = other.encode_image((images - pixels[0]) / pixels[1], normalize=True)
    text = other.encode_text(tokens, normalize=True)
    if "bn_final_image.weight" in content:
        image, text = (
            F.normalize(
                F.batch_norm(
                    x,
                    *(content[f"bn_final_{part}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")),
                )
            )
            for part, x in (("image", image), ("text", text))
        )  # fmt: skip
    return image, text


@pytest.mark.parametrize("family", FILES)
@torch.no_grad()
def test_embeddings_are_those_of_the_published_model(family: str, tmp_path: Path) -> None:
    other, content, path = written(family, tmp_path)
    model: Any = hypvl.create_model(small(FILES[family].definition), path)
    size = model.image_size
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokens = model.tokenizer(["a cat", "two dogs on a red sofa " * 12, "blue", "a cat that sleeps"])
    tokens = F.pad(tokens, (0, FILES[family].tokens - tokens.shape[1]))
    pixels = (model.visual.pixel_mean, model.visual.pixel_std)
    image, text = reference(other, content, images, tokens, pixels=pixels)
    for ours, wanted in ((model.encode_image(images), image), (model.encode_text(tokens), text)):
        assert wanted.std(0).mean() > 1e-4  # items differ
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    assert float(model.scorer.log_scale) == pytest.approx(
        float(other.logit_scale), abs=2e-3
    )  # half precision
    assert model.visual.pixel_mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])


@pytest.mark.parametrize(
    ("definition", "name", "tokens"),
    [
        ("pacs_vit_b_32", "ViT-B-32-quickgelu", 77),
        ("cyclip_rn50", "RN50-quickgelu", 77),
        ("cloob_rn50x4", "RN50x4-quickgelu", 77),
        ("protoclip_rn50", "RN50", 77),
        ("longclip_vit_b_32", "ViT-B-32-quickgelu", 248),
        ("longclip_vit_b_16", "ViT-B-16-quickgelu", 248),
        ("longclip_vit_l_14", "ViT-L-14-quickgelu", 248),
    ],
)
def test_full_sizes_are_those_of_open_clip(definition: str, name: str, tokens: int) -> None:
    """Every name and shape of a full-size file, without its numbers, and the settings that no shape shows."""
    import open_clip

    config = open_clip.get_model_config(name)
    config["text_cfg"]["context_length"] = tokens
    with torch.device("meta"):
        state: State = dict(open_clip.model.CLIP(**config).state_dict())
        node = load_config(definition)
        model = build_model(node, source=definition, weights_follow=True)
    if tokens == 248:
        state["positional_embedding_res"] = state["positional_embedding"]
    converted = clip_files.to_hypvl(state, wanted=model.state_dict())
    assert {k: t.shape for k, t in converted.items()} == {k: t.shape for k, t in model.state_dict().items()}
    textual: Any = model.textual
    assert textual.heads == config["text_cfg"]["heads"]
    assert model.image_size == config["vision_cfg"]["image_size"]
    assert node.model.textual.activation == ("quick_gelu" if config.get("quick_gelu") else "gelu")


def test_what_differs_from_another_architecture_is_listed(tmp_path: Path) -> None:
    def message(family: str, definition: str) -> str:
        with pytest.raises(CheckpointError) as error:
            hypvl.create_model(small(definition), written(family, tmp_path)[2])
        return str(error.value)

    longer = message("Long-CLIP", "pacs_vit_b_32")
    assert "longclip-B-32.pt: does not fit the model: " in longer
    assert "model.textual.context_length is 248 in the file, 77 in the model" in longer
    assert "number of tables of text positions (fixed_positions) is 2 in the file, 1 in the model" in longer
    resnet = message("CyCLIP", "longclip_vit_b_32")
    assert "a vision transformer in the model" in resnet and "is 77 in the file, 248 in the model" in resnet
    norms = message("I0T", "longclip_vit_b_32")
    assert "number of model.image_transforms is 1 in the file, 0 in the model" in norms
    assert "number of model.text_transforms is 0 in the file, 1 in the model" in message(
        "Long-CLIP", "i0t_async_vit_b_32"
    )


def test_half_of_the_batch_norms_is_refused() -> None:
    state = {"token_embedding.weight": torch.zeros(2), "bn_final_text.weight": torch.zeros(2)}
    with pytest.raises(
        CheckpointError, match=r"missing bn_final_image\.\*; expected the batch norms of both"
    ):
        clip_files.to_hypvl(state)


@pytest.mark.parametrize("family", [f for f in FILES if not f.endswith(("x4", "B/16", "L/14"))])
def test_a_suite_in_one_command(family: str, tmp_path: Path) -> None:
    from hypvl.cli.evaluate import main

    _, _, path = written(family, tmp_path)
    definition = tmp_path / "small.json"
    definition.write_text(json.dumps(small(FILES[family].definition)))
    sugarcrepe.make(tmp_path / "datasets")
    config = str(ROOT / "configs" / "eval_sugarcrepe.py")
    with inside(tmp_path):
        command = [
            "--config", config, "--checkpoint-path", str(path), "--train-config", str(definition), "--device", "cpu",
            "--num-workers", "0", "--no-download", "--output-dir", str(tmp_path / "out"),
        ]  # fmt: skip
        code = main(command)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert code == 0 and 0 <= results["sugarcrepe"]["metrics"]["macro_accuracy"] <= 100
