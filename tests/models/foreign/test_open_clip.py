"""Models of open_clip by one name: the same embeddings as open_clip's own, from a raw image and a raw text."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import hypvl
from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.data.transforms_library import OpenClipTransform
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.foreign import load_foreign
from hypvl.models.hub import load_config
from tests.models import test_open_clip as rebuilt
from tests.models.foreign import tiny

# How open_clip makes images of each family
PIXELS: dict[str, dict[str, Any]] = {
    "ViT": {},
    "SigLIP": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    "CoCa": {},
    "ConvNeXt": {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 99},
}


def saved(family: str, folder: Path) -> Any:
    """A folder as open_clip writes one, and open_clip's own model."""
    config = rebuilt.config_of(family)
    if family != "SigLIP":
        config["text_cfg"]["vocab_size"] = 49408  # CLIP's own tokenizer
    model = rebuilt.theirs(config) if family != "CoCa" else coca(config)
    rebuilt.folder_of(config, folder, **PIXELS[family])
    if family == "SigLIP":
        tiny.siglip_tokenizer(folder)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return model


def coca(config: dict[str, Any]) -> Any:
    """open_clip's whole CoCa, with the decoder of captions that no embedding needs."""
    config["text_cfg"] |= {"heads": 2, "width": 24}
    decoder = {
        "width": 24,
        "heads": 2,
        "layers": 1,
        "context_length": 8,
        "vocab_size": 49408,
        "attn_pooler_heads": 2,
    }
    settings = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    return tiny.perturb(open_clip.CoCa(multimodal_cfg=decoder, **settings))


@torch.no_grad()
@pytest.mark.parametrize("family", PIXELS)
def test_embeddings_of_a_raw_image_and_texts(family: str, tmp_path: Path) -> None:
    theirs = saved(family, tmp_path)
    foreign = load_foreign(f"open_clip:local-dir:{tmp_path}")
    size = foreign.model.image_size
    config = open_clip.transform.PreprocessCfg(size=size, **PIXELS[family])
    own = open_clip.transform.image_transform_v2(config, is_train=False)
    photo = tiny.photo(281, 200)
    wanted = theirs.encode_image(own(photo)[None], normalize=True)
    for transform in (Squeeze.of(foreign.model), ResizeCenterCrop.of(foreign.model)):
        image = foreign.model.encode_image(transform(tiny.as_tensor(photo))[None])
        assert float((image - wanted).abs().max()) <= 1e-5
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}", context_length=foreign.model.context_length)(
        tiny.TEXTS
    )
    ours = foreign.model.tokenizer(tiny.TEXTS)
    assert torch.equal(ours, tokens) and (family == "SigLIP") == (int(tokens.max()) < 60)
    text = foreign.model.encode_text(tokens)
    assert float((text - theirs.encode_text(tokens, normalize=True)).abs().max()) <= 1e-5
    assert set(foreign.about["files"]) >= {"open_clip_pytorch_model.bin", "open_clip_config.json"}
    assert ("tokenizer_config.json" in foreign.about["files"]) == (family == "SigLIP")


def test_an_image_of_one_line_is_cut_before_it_grows() -> None:
    """1 x 20,000 pixels would become 32 x 640,000 on the way."""
    line = torch.arange(20_000).remainder(256).to(torch.uint8).expand(3, 1, -1)
    made = OpenClipTransform(32)(line)
    middle = line[:, :, 9_996:10_004]
    assert made.shape == (3, 32, 32) and torch.equal(made, OpenClipTransform(32)(middle))


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(71, 50), (33, 90), (32, 32)])
def test_bytes_are_those_of_open_clip(mode: Any, interpolation: str, shape: tuple[int, int]) -> None:
    config = open_clip.transform.PreprocessCfg(
        size=32, resize_mode=mode, interpolation=interpolation, fill_color=7, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    wanted = open_clip.transform.image_transform_v2(config, is_train=False)(tiny.photo(*shape)) * 255
    transform = OpenClipTransform(32, resize_mode=mode, interpolation=interpolation, fill_color=7)
    made = transform(tiny.as_tensor(tiny.photo(*shape)))
    assert made.dtype == torch.uint8 and np.array_equal(made.numpy(), wanted.round().numpy().astype(np.uint8))


def test_a_file_with_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("ViT", tmp_path)
    tiny_config = rebuilt.config_of("ViT")
    tiny_config["text_cfg"]["vocab_size"] = 49408
    file = (tmp_path / "open_clip_pytorch_model.bin").rename(tmp_path / "weights.pt")
    monkeypatch.setattr(
        "open_clip.get_model_config", {"tiny": tiny_config, "deep": rebuilt.config_of("CLIPA")}.get
    )
    foreign = load_foreign(f"open_clip:tiny/{file}")
    assert foreign.about["architecture"] == "tiny" and set(foreign.about["files"]) == {"weights.pt"}
    assert foreign.subject == {key: foreign.about[key] for key in ("library", "architecture", "files")}
    assert repr(foreign.model.image_transform) == repr(OpenClipTransform(16))
    with pytest.raises(CheckpointError, match=r"does not fit the model|missing|unexpected"):
        load_foreign(f"open_clip:deep/{file}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32", "says no weights; expected open_clip:ViT-B-32/WEIGHTS with one of openai, laion"),
        ("ViT-B-33/openai", r"ViT-B-33: no model of open_clip; the closest name is ViT-B-32"),
        (
            "ViT-B-32/laion2b_s34b_b79",
            "no pretrained weights of open_clip's ViT-B-32; the closest tag is laion2b_s34",
        ),
        ("local-dir:/nowhere", "has no open_clip_config.json"),
    ],
)
def test_what_open_clip_does_not_have(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_foreign(f"open_clip:{name}")


def test_models_that_squeeze_are_evaluated_so_everywhere(tmp_path: Path) -> None:
    """Also where the model is one of hypvl's own by its name, to be trained on."""
    saved("SigLIP", tmp_path)
    model, train, evaluate = hypvl.create_model_and_transforms(f"open_clip:local-dir:{tmp_path}")
    size = model.image_size
    assert repr(evaluate.transform) == f"Squeeze(size={size})"
    assert repr(train.transform).startswith("RandomResizedCrop")
    assert model.resize_mode == "squash" and model.image_transform is None
    node = load_config(f"open_clip:local-dir:{tmp_path}").model.visual
    assert node.resize_mode == "squash"
