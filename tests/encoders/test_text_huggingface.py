"""Text models of transformers: the library's own numbers, poolers, and features that know no padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.encoders.image import without_pretrained_weights
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder, _first_position
from hypvl.errors import ConfigError, UserError
from tests.encoders.texts import SIZES, TEXTS, saved_model, word_pieces

KINDS = ("bert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: str(saved_model(tmp_path_factory.mktemp(kind), kind)) for kind in KINDS}


def encoder(folder: str, pooler: Any = "mean", **options: Any) -> HuggingFaceTextEncoder:
    return HuggingFaceTextEncoder(folder, pooler=pooler, **({"context_length": 40} | options)).eval()


def theirs(folder: str, texts: list[str] = TEXTS) -> tuple[Any, Tensor]:
    """Output of the library for each text alone, and the lengths: (states of all, pooled) unpadded."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        outputs = [model(**tokenizer([text], return_tensors="pt")) for text in texts]
    return outputs, torch.tensor([out.last_hidden_state.shape[1] for out in outputs])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_poolers_give_the_numbers_of_the_library(folders: dict[str, str], kind: str) -> None:
    outputs, _ = theirs(folders[kind])
    expected = {
        "mean": [out.last_hidden_state.mean(1) for out in outputs],
        "last": [out.last_hidden_state[:, -1] for out in outputs],
    }
    if kind != "gpt2":
        expected["cls"] = [out.pooler_output for out in outputs]
        expected["cls_before_pooler"] = [out.last_hidden_state[:, 0] for out in outputs]
    for pooler, rows in expected.items():
        model = encoder(folders[kind], pooler)
        features = model(model.tokenizer(TEXTS))
        assert model.width == 16 and features.std() > 0.05
        torch.testing.assert_close(features, torch.cat(rows), rtol=0, atol=1e-5)
    if kind != "gpt2":
        without = encoder(folders[kind], "cls", use_pooler=False)
        torch.testing.assert_close(
            without(without.tokenizer(TEXTS)), torch.cat(expected["cls_before_pooler"]), rtol=0, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "pooler"), [("bert", "cls"), ("bert", "prompt"), ("roberta", "prompt"), ("gpt2", "last")]
)
def test_features_do_not_depend_on_padding(folders: dict[str, str], kind: str, pooler: str) -> None:
    """Not on how far the batch is padded, nor on whether columns of padding are cut off before the network."""
    model = encoder(folders[kind], pooler)
    tokens = model.tokenizer(TEXTS)
    wide = torch.nn.functional.pad(tokens, (0, 60), value=model.pad_token)  # beyond the context length
    alone = torch.cat([model(model.tokenizer([text])) for text in TEXTS])
    lengths = [len(model.tokenizer.encode(text)) for text in TEXTS]
    for features in (model(tokens), model(wide), model(wide, lengths)):
        torch.testing.assert_close(features, alone, rtol=0, atol=1e-6)
    model.pad_token = 10**6  # no padding is found: the same network then sees other texts
    assert (model(tokens.clamp(min=0)) - alone).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_prompt_is_the_mask_token_minus_that_of_the_template(folders: dict[str, str], kind: str) -> None:
    """PromptBERT by hand, text by text: the template alone keeps the positions that it has around the text."""
    model = encoder(folders[kind], "prompt", template='"{}" means [MASK] .')
    tokenizer, trunk = model.tokenizer, model.trunk
    mask = tokenizer.tokenizer.mask_token_id
    first = {"bert": 0, "roberta": 2}[kind]
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text)
        start, end = len(tokenizer.before), len(ids) - len(tokenizer.after)
        kept = [i for i in range(len(ids)) if not start <= i < end]
        assert len(ids) > len(kept)
        full = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, ids.index(mask)]
        alone = trunk(
            input_ids=torch.tensor([[ids[i] for i in kept]]), position_ids=torch.tensor([kept]) + first
        ).last_hidden_state[0]
        rows.append(full - alone[[ids[i] for i in kept].index(mask)])
    assert torch.stack(rows).abs().max() > 1e-3
    torch.testing.assert_close(model(tokenizer(TEXTS)), torch.stack(rows), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "first"), [("bert", 0), ("roberta", 2)])
def test_positions_begin_where_the_library_begins(folders: dict[str, str], kind: str, first: int) -> None:
    trunk = encoder(folders[kind]).trunk
    ids = torch.tensor([[5, 6, 7]])
    said = trunk(input_ids=ids, position_ids=torch.arange(3)[None] + first).last_hidden_state
    assert _first_position(trunk) == first
    torch.testing.assert_close(said, trunk(input_ids=ids).last_hidden_state)


def test_an_empty_template_text_gives_nothing(folders: dict[str, str]) -> None:
    """With no text the two halves of PromptBERT are the same."""
    model = encoder(folders["bert"], "prompt")
    assert model(model.tokenizer([""])).abs().max() < 1e-6


@pytest.mark.parametrize("pooler", ["mean", "cls_before_pooler", "prompt"])
def test_every_parameter_learns(folders: dict[str, str], pooler: str) -> None:
    model = encoder(folders["bert"], pooler)
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]
    model(model.tokenizer(TEXTS)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_grad_checkpointing_gives_the_same_gradients(folders: dict[str, str], kind: str) -> None:
    gradients = []
    for recompute in (False, True):
        model = encoder(folders[kind], "mean", grad_checkpointing=recompute).double().train()
        assert model.trunk.is_gradient_checkpointing is recompute
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model(model.tokenizer(TEXTS)).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, direct in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], direct, rtol=1e-10, atol=1e-12)


def test_weights_are_loaded_only_where_asked_for(folders: dict[str, str]) -> None:
    loaded = encoder(folders["bert"]).state_dict()
    torch.manual_seed(1)
    for other in (encoder(folders["bert"], pretrained=False), _without(folders["bert"])):
        assert other.state_dict().keys() == loaded.keys()
        name = "trunk.encoder.layer.0.attention.self.query.weight"
        assert not torch.equal(other.state_dict()[name], loaded[name])
    assert encoder(folders["bert"]).train().trunk.training


def _without(folder: str) -> HuggingFaceTextEncoder:
    with without_pretrained_weights():
        return encoder(folder)


def config(**changes: Any) -> dict[str, Any]:
    return {"model_type": "bert", "vocab_size": 18, **SIZES, **changes}


def test_a_config_alone_gives_random_weights(tmp_path: Path) -> None:
    model = HuggingFaceTextEncoder(config=config(), pooler="mean", context_length=8)
    assert (model.width, model.vocab_size, model.pad_token) == (16, 18, 0) and not hasattr(model, "tokenizer")
    named = HuggingFaceTextEncoder(config=config(), tokenizer=str(word_pieces(tmp_path)), context_length=8)
    assert named(named.tokenizer(["a cat"])).shape == (1, 16)


CHINESE_CLIP = {
    "model_type": "chinese_clip", "projection_dim": 6, "text_config": {"vocab_size": 18, **SIZES},
    "vision_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "image_size": 16, "patch_size": 8,
    },
}  # fmt: skip


@torch.no_grad()
def test_the_text_half_of_chinese_clip(tmp_path: Path) -> None:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    torch.manual_seed(0)
    whole = ChineseCLIPModel(
        ChineseCLIPConfig(**{k: v for k, v in CHINESE_CLIP.items() if k != "model_type"})
    )
    whole.save_pretrained(str(word_pieces(tmp_path)))
    model = encoder(str(tmp_path), "cls", projection=True)
    tokens = model.tokenizer(TEXTS)
    expected = whole.eval().get_text_features(tokens, attention_mask=(tokens != 0).long())
    torch.testing.assert_close(model(tokens), getattr(expected, "pooler_output", expected), rtol=0, atol=1e-5)
    assert model.width == 6 and encoder(str(tmp_path), "cls").width == 16
    assert not [name for name in model.state_dict() if "vision" in name]


@torch.no_grad()
def test_of_encoder_and_decoder_the_encoder_is_used() -> None:
    small = {
        "model_type": "t5",
        "vocab_size": 30,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 2,
    }
    torch.manual_seed(0)
    model = HuggingFaceTextEncoder(config=small, pooler="mean", context_length=8).eval()
    tokens = torch.tensor([[5, 6, 7, 1]])
    torch.testing.assert_close(model(tokens), model.trunk(input_ids=tokens).last_hidden_state.mean(1))
    assert model.width == 16 and not [name for name in model.state_dict() if "decoder" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"textual\.name is None and textual\.config is None; give one of them"),
        (
            {"name": "gpt2", "pooler": "cls"},
            r"in .*gpt2.* the first token sees no other one; set it to last or mean",
        ),
        ({"name": "bert", "context_length": 43}, r"context_length is 43, but .* has positions for 42 tokens"),
        (
            {"name": "roberta", "context_length": 41},
            r"context_length is 41, but .* has positions for 40 tokens",
        ),
        ({"name": "gpt2", "pooler": "last", "projection": True}, "has no text projection; set it to false"),
        (
            {"name": "bert", "pooler": "prompt", "template": "{} it is"},
            r"template is .*; expected \[MASK\] in it",
        ),
        (
            {"config": config(), "pooler": "prompt"},
            r"textual\.tokenizer is null, but the pooler prompt needs",
        ),
        ({"config": {"hidden_size": 3}}, "has no model_type; expected one, such as bert"),
        ({"config": {"model_type": "brt"}}, "transformers has no 'brt' with these settings"),
        ({"config": config(auto_map={"AutoModel": "x.Y"})}, r"config\.auto_map: is not taken from a config"),
        (
            {"config": config(text_config={"attn_implementation": "a/b"})},
            r"config\.text_config\.attn_implementation",
        ),
    ],
)
def test_what_cannot_be_built(folders: dict[str, str], options: dict[str, Any], message: str) -> None:
    given = {"context_length": 30, **options}
    if "name" in given:
        given["name"] = folders[given["name"]]
    with pytest.raises(ConfigError, match=message):
        HuggingFaceTextEncoder(**given)


def test_numbers_of_a_config_are_checked() -> None:
    with pytest.raises(
        ValueError, match=r"config\.hidden_size: got 1e\+30; expected a number up to 2147483647"
    ):
        HuggingFaceTextEncoder(config=config(hidden_size=1e30), context_length=8)
    with pytest.raises(ValueError, match="config: transformers cannot build bert"):
        HuggingFaceTextEncoder(config=config(num_attention_heads=3), context_length=8)


def test_a_folder_without_weights_or_config(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"the config of .* cannot be loaded .*expected a folder of save_pretrained"
    ):
        HuggingFaceTextEncoder(str(tmp_path))
    word_pieces(tmp_path)
    (tmp_path / "config.json").write_bytes((Path(folders["bert"]) / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"the weights of .* cannot be loaded"):
        HuggingFaceTextEncoder(str(tmp_path), context_length=8)


def test_tokens_are_checked(folders: dict[str, str]) -> None:
    model = encoder(folders["bert"], context_length=8)
    with pytest.raises(TypeError, match="tokens are a list, but a tensor"):
        model([[1]])
    with pytest.raises(ValueError, match=r"tokens have shape \(3,\), but \(B, L\)"):
        model(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="tokens are 9 long, but the context length is 8"):
        model(torch.full((1, 9), 5))
