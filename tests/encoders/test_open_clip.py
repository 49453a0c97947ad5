"""Single encoders of open_clip inside ours: the same output, and one half of a file."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from hypvl.data.tokenizer import Tokenizer
from hypvl.data.tokenizer_open_clip import OpenClipTokenizer
from hypvl.encoders.image import without_pretrained_weights
from hypvl.encoders.mlp_heads import IdentityHead
from hypvl.encoders.open_clip import OpenClipImageEncoder, OpenClipTextEncoder
from hypvl.errors import CheckpointError, ConfigError, UserError
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model

CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
    "text_cfg": {"context_length": 9, "vocab_size": 60, "width": 24, "heads": 2, "layers": 2},
}
ROBERTA = {
    "model_type": "roberta", "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 20, "pad_token_id": 1,
}  # fmt: skip
TOKENS = torch.tensor([[58, 5, 4, 59, 0, 0], [58, 59, 0, 0, 0, 0], [58, 7, 8, 3, 2, 59]])


def named(config: dict[str, Any], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"std": 0.5}})
    )
    return f"local-dir:{folder}"


def theirs(config: dict[str, Any], *, custom: bool = True) -> Any:
    torch.manual_seed(0)
    model: nn.Module = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("custom", [True, False])
@torch.no_grad()
def test_half_of_a_file_is_an_encoder(custom: bool, tmp_path: Path) -> None:
    other, name, file = theirs(CONFIG, custom=custom), named(CONFIG, tmp_path), str(tmp_path / "model.pt")
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in other.state_dict().items()}}, file)
    image = OpenClipImageEncoder(name, pretrained=file, pixel_mean=(0.1, 0.2, 0.3)).eval()
    text = OpenClipTextEncoder(name, pretrained=file).eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(image(images), other.encode_image((images - mean) / 0.5), atol=1e-5, rtol=0)
    wanted = other.encode_text(nn.functional.pad(TOKENS, (0, 3)))
    torch.testing.assert_close(text(TOKENS), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(text(TOKENS, [4, 2, 6]), wanted, atol=1e-5, rtol=0)
    assert (image.width, image.image_size, text.width, text.context_length, text.vocab_size) == (
        12,
        16,
        12,
        9,
        60,
    )
    assert image.preprocessing.std == pytest.approx((0.5, 0.5, 0.5))
    assert image.asked_pixels == {"pixel_mean"} and isinstance(text.tokenizer, Tokenizer)
    model = DualEncoder(
        image, text, visual_head=IdentityHead, textual_head=IdentityHead, geometry=Sphere(), scorer=Cosine()
    )
    assert torch.equal(model.encode_text(TOKENS, stage="features"), text(TOKENS))
    names = {name.partition(".tower.")[0] for name, _ in model.named_parameters() if ".tower." in name}
    assert names == {"visual", "textual"}
    with pytest.raises(ValueError, match="tokens are 10 long, but the context length is 9"):
        text(torch.zeros(1, 10, dtype=torch.int64))


def test_no_weights_are_read_where_others_follow(tmp_path: Path) -> None:
    name = named(CONFIG, tmp_path)
    with without_pretrained_weights():
        OpenClipImageEncoder(name, pretrained=str(tmp_path / "missing.pt"))
    with pytest.raises(
        ConfigError, match=r"missing.pt: no file, and no pretrained weights of open_clip's local-dir"
    ):
        OpenClipImageEncoder(name, pretrained=str(tmp_path / "missing.pt"))


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    name = named(CONFIG, tmp_path)
    wide = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "layers": 3}}
    state = theirs(wide).state_dict()
    torch.save(state, tmp_path / "deep.pt")
    with pytest.raises(
        CheckpointError, match=r"does not fit the visual encoder of local-dir:.*resblocks.2.attn.in_"
    ):
        OpenClipImageEncoder(name, pretrained=str(tmp_path / "deep.pt"))
    OpenClipTextEncoder(name, pretrained=str(tmp_path / "deep.pt"))  # that half is the same
    state["text.ln_final.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match=r"nan.pt: holds NaN or infinity"):
        OpenClipTextEncoder(name, pretrained=str(tmp_path / "nan.pt"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text.pt: no state dict of open_clip"):
        OpenClipTextEncoder(name, pretrained=str(tmp_path / "text.pt"))
    with pytest.raises(ConfigError, match="ViT-B-33: no model of open_clip; the closest name is ViT-B-32"):
        OpenClipTextEncoder("ViT-B-33")
    with pytest.raises(ConfigError, match="the closest tag is laion2b_s34b_b79k"):
        OpenClipImageEncoder("ViT-B-32", pretrained="laion2b_s34b")
    broken = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "colour": 3}}
    with pytest.raises(ConfigError, match=r"open_clip cannot build it \(TypeError.*colour"):
        OpenClipImageEncoder(named(broken, tmp_path / "broken"))
    long = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": [16, 32]}}
    with pytest.raises(ConfigError, match="takes images of 16 x 32; expected a square"):
        OpenClipImageEncoder(named(long, tmp_path / "long"))


@torch.no_grad()
def test_texts_of_hugging_face(tmp_path: Path) -> None:
    """Padding is masked by its id, which the tokenizer of the model fills with."""
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps(ROBERTA))
    text = {
        "hf_model_name": str(tmp_path / "hf"),
        "hf_tokenizer_name": str(tmp_path / "hf"),
        "context_length": 9,
    }
    config = {**CONFIG, "text_cfg": text}
    other = theirs({**config, "text_cfg": {**text, "hf_model_pretrained": False}})
    name = named(config, tmp_path / "model")
    model = create_model(f"open_clip:{name}", {"model": other.state_dict()})
    assert isinstance(model.textual, OpenClipTextEncoder) and model.textual.pad_token == 1
    assert type(model.visual).__name__ == "TimmImageEncoder"
    wanted = other.encode_text(
        nn.functional.pad(TOKENS.where(TOKENS != 0, 1), (0, 3), value=1), normalize=True
    )
    assert wanted.std(0).mean() > 1e-3
    torch.testing.assert_close(model.encode_text(TOKENS), wanted, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match=r"the config of its text encoder no/such could not be read"):
        OpenClipTextEncoder(named({**config, "text_cfg": {"hf_model_name": "no/such"}}, tmp_path / "other"))


def word_tokenizer(folder: Path) -> None:
    """A tokenizer of a few words in Hugging Face's format, which fills with id 1."""
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<pad>": 1, "a": 2, "cat": 3}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    file = folder / "words.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    file.unlink()


def test_the_tokenizer_of_a_folder(tmp_path: Path) -> None:
    import pickle

    text = {
        **CONFIG["text_cfg"],
        "hf_tokenizer_name": "any",
        "pool_type": "last",
        "no_causal_mask": True,
        "pad_id": 1,
    }
    name = named({**CONFIG, "text_cfg": text}, tmp_path)
    word_tokenizer(tmp_path)
    model = create_model(f"open_clip:{name}", {"model": theirs({**CONFIG, "text_cfg": text}).state_dict()})
    tokenizer: OpenClipTokenizer = pickle.loads(pickle.dumps(model.tokenizer))
    rows: Tensor = tokenizer(["a cat", "dog"])
    assert rows.tolist() == [[2, 3, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1]]
    assert tokenizer([]).shape == (0, 9)
    assert torch.equal(
        model.encode_text(rows), model.encode_text(rows[:, :2])
    )  # the encoder fills as it does
    with pytest.raises(
        ConfigError, match=r"pad_token: got 0, but the tokenizer of .* fills rows with 1; give that"
    ):
        OpenClipTokenizer(name, context_length=9, vocab_size=60)("a cat")
    with pytest.raises(TypeError, match=r"a text is int \(3\), but a string is expected"):
        tokenizer([3])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(UserError, match=r"ViT-B-16-SigLIP: the files of its tokenizer could not be read"):
        OpenClipTokenizer("ViT-B-16-SigLIP", context_length=64, vocab_size=32000, pad_token=1)("a cat")
