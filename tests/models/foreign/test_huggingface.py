"""Models of transformers: the same embeddings as the library's own, from a raw image and a raw text."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.data.transforms import ResizeCenterCrop, Squeeze
from hypvl.embedding.identity import model_identity
from hypvl.errors import CheckpointError, UserError
from hypvl.models.foreign import huggingface, load_foreign
from hypvl.models.foreign.record import ForeignModel
from tests.models.foreign import tiny

transformers = pytest.importorskip("transformers")
FAMILY = huggingface.FAMILIES["clip"]
FAMILIES: dict[str, Callable[[Path], Any]] = {
    "clip": tiny.clip,
    "metaclip2": tiny.metaclip2,
    "siglip": tiny.siglip,
    "siglip2": tiny.siglip2,
    "blip": tiny.blip,
    "blip2": tiny.blip2,
}


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ForeignModel, Any, Path]:
    """The model of hypvl, that of the library, and their folder."""
    folder = tmp_path_factory.mktemp("hf") / request.param
    theirs = FAMILIES[request.param](folder)
    return load_foreign(f"hf:{folder}"), theirs, folder


def own_inputs(folder: Path, *, full_rows: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """What the library's own processors make of the photo and the texts."""
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(images=tiny.photo(), return_tensors="pt")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if full_rows else True
    texts = tokenizer(
        tiny.TEXTS, padding=padding, truncation=True, max_length=tiny.LENGTH, return_tensors="pt"
    )
    return pixels["pixel_values"], {
        name: texts[name] for name in ("input_ids", "attention_mask") if name in texts
    }


@torch.no_grad()
def own_embeddings(model: Any, folder: Path) -> tuple[Tensor, Tensor]:
    """Unit embeddings by the library's own forward pass."""
    kind = type(model).__name__
    pixels, texts = own_inputs(folder, full_rows=kind == "SiglipModel")
    if kind == "SiglipModel":
        texts.pop("attention_mask", None)
    if kind in ("CLIPModel", "MetaClip2Model", "SiglipModel"):
        out = model(pixel_values=pixels, **texts)
        return out.image_embeds, out.text_embeds
    if kind == "Blip2ForImageTextRetrieval":
        out = model(pixel_values=pixels, **texts)
        tokens = out.image_embeds.shape[1]
        text = out.text_embeds.reshape(len(tiny.TEXTS), -1).tile(tokens)
        return out.image_embeds.flatten(1) / tokens**0.5, text / tokens**0.5
    out = model(
        pixel_values=pixels, use_itm_head=False, **texts
    )  # only scores: an image and a text at a time
    image = model.vision_proj(model.vision_model(pixels).last_hidden_state[:, 0])
    image = torch.nn.functional.normalize(image, dim=-1)
    text = torch.nn.functional.normalize(model.text_proj(out.question_embeds[:, 0]), dim=-1)
    torch.testing.assert_close(out.itm_score, image @ text.T, atol=1e-6, rtol=0)
    return image, text


@torch.no_grad()
def test_embeddings_of_a_raw_image_and_texts(both: tuple[ForeignModel, Any, Path]) -> None:
    foreign, theirs, folder = both
    model = foreign.model
    for transform in (Squeeze.of(model), ResizeCenterCrop.of(model)):
        image = model.encode_image(transform(tiny.as_tensor(tiny.photo()))[None])
        text = model.encode_text(model.tokenizer(tiny.TEXTS))
        wanted_image, wanted_text = own_embeddings(theirs, folder)
        assert float((image - wanted_image).abs().max()) <= 1e-5
        assert float((text - wanted_text).abs().max()) <= 1e-5
    assert wanted_text.std(0).mean() > 1e-3
    # alone, too: padding does not matter
    alone = torch.cat([model.encode_text(model.tokenizer([text])) for text in tiny.TEXTS])
    assert float((alone - wanted_text).abs().max()) <= 1e-5


@torch.no_grad()
def test_scores_of_blip2_are_those_of_its_closest_token(tmp_path: Path) -> None:
    theirs = tiny.blip2(tmp_path / "blip2")
    model = load_foreign(f"hf:{tmp_path / 'blip2'}").model
    image = model.encode_image(Squeeze.of(model)(tiny.as_tensor(tiny.photo()))[None])
    text = model.encode_text(model.tokenizer(tiny.TEXTS))
    pixels, texts = own_inputs(tmp_path / "blip2", full_rows=False)
    wanted = theirs(pixel_values=pixels, **texts).logits_per_image
    scores = model.scores(image, text, query_modality="image", key_modality="text")
    assert float((scores - wanted).abs().max()) <= 1e-5
    features = model.encode_text(model.tokenizer(tiny.TEXTS), stage="features")
    alone = model.class_scores(image, features[:, None])  # a class for each text
    assert float((alone - wanted).abs().max()) <= 1e-5


@torch.no_grad()
def test_logits_have_the_scale_and_the_bias_of_the_model(both: tuple[ForeignModel, Any, Path]) -> None:
    foreign, theirs, folder = both
    if not hasattr(theirs, "logit_scale"):
        pytest.skip("has no scale")
    image, text = own_embeddings(theirs, folder)
    logits = foreign.model.scorer.logits(
        foreign.model.geometry, image, text, query_modality="image", key_modality="text"
    )
    wanted = theirs.logit_scale.exp() * image @ text.T + getattr(theirs, "logit_bias", 0.0)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-6)


def test_what_it_is(both: tuple[ForeignModel, Any, Path]) -> None:
    foreign, theirs, folder = both
    about = foreign.about
    assert (about["library"], about["architecture"], about["id"]) == (
        "transformers",
        type(theirs).__name__,
        str(folder),
    )
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} <= set(about["files"])
    assert foreign.library_model is not None and type(foreign.library_model) is type(theirs)
    moved = folder.with_name(f"{folder.name}_moved")
    shutil.copytree(folder, moved)
    again = load_foreign(f"hf:{moved}")
    assert model_identity(again.model) == model_identity(foreign.model) is not None
    assert again.subject == foreign.subject and repr(again.model.image_transform) == repr(
        foreign.model.image_transform
    )


def test_a_folder_of_another_architecture_lists_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.clip(tmp_path / "clip")
    wider = tmp_path / "wider"
    shutil.copytree(tmp_path / "clip", wider)
    config = transformers.CLIPConfig.from_pretrained(wider)
    config.vision_config.num_hidden_layers = 3
    config.text_config.intermediate_size = 60
    config.save_pretrained(wider)
    capsys.readouterr()
    with pytest.raises(
        CheckpointError, match=r"another architecture than config.json \(CLIPModel\): missing"
    ) as error:
        load_foreign(f"hf:{wider}")
    assert capsys.readouterr().err == ""  # one message, not that of transformers, too
    config.vision_config.num_hidden_layers = 1
    config.text_config.intermediate_size = 48
    config.save_pretrained(wider)
    with pytest.raises(
        CheckpointError, match=r"missing none; .* unexpected vision_model\.encoder\.layers\.1\."
    ):
        load_foreign(f"hf:{wider}")
    assert "layers.2" in str(error.value) and "is (48,) in the file, (60,) in the model" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "siglip2"}, "NaFlex.*take one of a fixed size"),
        (
            {"model_type": "bert"},
            "model_type is 'bert'; expected one of clip, metaclip_2, siglip, blip, blip-2",
        ),
        ({"architectures": ["CLIPVisionModel"]}, "holds a CLIPVisionModel; expected a CLIPModel"),
    ],
)
def test_models_of_other_kinds_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny.clip(tmp_path / "clip")
    tiny.change_json(tmp_path / "clip" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_foreign(f"hf:{tmp_path / 'clip'}")


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("config.json", "the config of .* cannot be loaded"),
        ("model.safetensors", "has no weights; expected model.safetensors or pytorch_model.bin"),
        ("preprocessor_config.json", "no image processor can be loaded"),
    ],
)
def test_missing_files_are_named(absent: str, message: str, tmp_path: Path) -> None:
    tiny.clip(tmp_path / "clip")
    (tmp_path / "clip" / absent).unlink()
    with pytest.raises(UserError, match=message):
        load_foreign(f"hf:{tmp_path / 'clip'}")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "config.json",
            "config.json: cannot be read as JSON .*; expected the config that save_pretrained wrote",
        ),
        (
            "model.safetensors",
            "transformers cannot load it .*; expected files that save_pretrained wrote, whole",
        ),
        (
            "pytorch_model.bin",
            "transformers cannot load it .*; expected files that save_pretrained wrote, whole",
        ),
        ("preprocessor_config.json", "no image processor can be loaded"),
        ("tokenizer.json", "no tokenizer can be loaded"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_files_that_are_cut_off_are_no_traceback(
    file: str, message: str, share: float, tmp_path: Path
) -> None:
    model = tiny.clip(tmp_path / "clip")
    path = tmp_path / "clip" / file
    if file.endswith(".bin"):
        (tmp_path / "clip" / "model.safetensors").unlink()
        torch.save(model.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=message):
        load_foreign(f"hf:{tmp_path / 'clip'}")


@pytest.mark.parametrize("family", [tiny.clip, tiny.blip, tiny.siglip])
def test_a_folder_without_a_tokenizer_is_refused(family: Callable[[Path], Any], tmp_path: Path) -> None:
    """transformers makes CLIP's and BERT's without a vocabulary, for which all words are the same."""
    family(tmp_path / "model")
    for pattern in ("tokenizer*", "spiece*", "special_tokens*"):
        for path in (tmp_path / "model").glob(pattern):
            path.unlink()
    with pytest.raises(UserError, match=r"tokenizer has no vocabulary|no tokenizer can be loaded"):
        load_foreign(f"hf:{tmp_path / 'model'}")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_from_the_cache_of_the_hub(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the files that are needed are asked for: weights without code, and not twice in two formats."""
    model = tiny.clip(tmp_path / "repository")
    snapshot = tmp_path / "models--some--clip" / "snapshots" / "0123abc"
    if weights.endswith(".bin"):
        (tmp_path / "repository" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "repository" / weights)
    (tmp_path / "repository" / "modeling.py").write_text("raise SystemExit")
    asked: list[tuple[str, Any]] = []

    def download(
        repo_id: str, *, revision: Any, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        asked.append((repo_id, revision))
        snapshot.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in (tmp_path / "repository").glob(pattern):
                shutil.copy(file, snapshot / file.name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    foreign = load_foreign("hf:some/clip@v2")
    assert set(asked) == {("some/clip", "v2")}
    assert foreign.about["revision"] == "0123abc" and foreign.about["id"] == "some/clip@v2"
    assert weights in foreign.about["files"] and not (snapshot / "modeling.py").exists()


def test_a_processor_of_another_size_is_refused(tmp_path: Path) -> None:
    tiny.clip(tmp_path / "clip")
    tiny.change_json(tmp_path / "clip" / "preprocessor_config.json", crop_size={"height": 24, "width": 24})
    with pytest.raises(CheckpointError, match="makes 24 x 24 pixels, its config says 32 x 32"):
        load_foreign(f"hf:{tmp_path / 'clip'}")


def test_an_architecture_that_this_transformers_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.clip(tmp_path / "clip")
    monkeypatch.setattr(
        "hypvl.models.foreign.huggingface.FAMILIES", {"clip": FAMILY._replace(architecture="NewModel")}
    )
    tiny.change_json(tmp_path / "clip" / "config.json", architectures=["NewModel"])
    with pytest.raises(UserError, match=r"has no NewModel; install a later one: pip install -U transformers"):
        load_foreign(f"hf:{tmp_path / 'clip'}")


def test_a_folder_of_hypvl_says_how_it_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format_version": 1, "model": {"_target_": "x"}}))
    with pytest.raises(CheckpointError, match=rf"is a model of hypvl.*--train-config {tmp_path}"):
        load_foreign(f"hf:{tmp_path}")


def test_neither_a_folder_nor_an_id() -> None:
    with pytest.raises(CheckpointError, match=r"hf:nowhere: no such folder; expected one with config\.json"):
        load_foreign("hf:nowhere")
    with pytest.raises(UserError, match=r"some/model at v2: no such folder, and the hub did not give it"):
        load_foreign("hf:some/model@v2")
