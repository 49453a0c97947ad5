"""BLIP from a file in LAVIS's format, against the parts that its names come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hypvl.data.transforms import Squeeze
from hypvl.errors import CheckpointError
from hypvl.models.foreign import load_foreign
from hypvl.models.foreign.record import ForeignModel
from tests.evaluation.miniatures import sugarcrepe
from tests.evaluation.smoke import ROOT, inside
from tests.models.convert.test_lavis import Blip, bert_states, blip2_file, vision
from tests.models.foreign import tiny
from tests.models.test_matching import random_

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[ForeignModel, Any, Path]:
    """The model of hypvl, the parts, and the file."""
    folder = tmp_path_factory.mktemp("blip")
    count = tiny.bert_tokenizer(folder)
    torch.manual_seed(0)
    parts = random_(Blip(count + 2))
    file = folder / "model_base_retrieval_coco.pth"
    torch.save(
        {"model": parts.file(), "optimizer": {"state": {}}, "config": {"image_size": 16}, "epoch": 5}, file
    )
    return load_foreign(f"lavis:{file}"), parts, file


@torch.no_grad()
def test_embeddings_and_matching_scores(both: tuple[ForeignModel, Any, Path]) -> None:
    foreign, parts, _ = both
    model: Any = foreign.model
    images = Squeeze.of(model)(tiny.as_tensor(tiny.photo()))[None]
    assert images.shape == (1, 3, 16, 16)
    pixels = (images / 255 - model.visual.pixel_mean) / model.visual.pixel_std
    assert model.visual.pixel_mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    states = parts.visual_encoder.forward_features(pixels)
    wanted = F.normalize(parts.vision_proj(states[:, 0]), dim=-1)
    torch.testing.assert_close(model.encode_image(images), wanted, rtol=0, atol=1e-5)
    texts = ["a red photo", "green"]
    scorer = model.pair_scorer
    scores = scorer.score(scorer.image_states(images).expand(2, -1, -1), texts)
    for text, score in zip(texts, scores, strict=True):
        ids = model.tokenizer([text])
        wanted = F.normalize(parts.text_proj(bert_states(parts.text_encoder, ids)[:, 0]), dim=-1)
        torch.testing.assert_close(model.encode_text(ids), wanted, rtol=0, atol=1e-5)
        ids[:, 0] = len(parts.text_encoder.embeddings.word_embeddings.weight) - 1  # [ENC]
        logit = parts.itm_head(bert_states(parts.text_encoder, ids, states)[:, 0])[0, 1]
        torch.testing.assert_close(score, logit, rtol=0, atol=1e-5)
    assert model.context_length == 35 and foreign.about["architecture"] == "BlipForImageTextRetrieval"
    assert {"model_base_retrieval_coco.pth", "tokenizer.json"} <= set(foreign.about["files"])


def test_a_file_that_lacks_weights_lists_them(both: tuple[ForeignModel, Any, Path], tmp_path: Path) -> None:
    _, parts, _ = both
    state = parts.file()
    tiny.bert_tokenizer(tmp_path)
    captioning = {name: t for name, t in state.items() if not name.startswith("itm_head")}
    torch.save({"model": captioning}, tmp_path / "captions.pth")
    with pytest.raises(
        CheckpointError, match=r"captions\.pth: does not fit BlipForImageTextRetrieval .*: missing itm_"
    ):
        load_foreign(f"lavis:{tmp_path / 'captions.pth'}")
    torch.save({"model": {"visual.proj": torch.zeros(2)}}, tmp_path / "clip.pth")
    with pytest.raises(
        CheckpointError, match=r"clip\.pth: state_dict: names visual\.proj; expected those of BLIP"
    ):
        load_foreign(f"lavis:{tmp_path / 'clip.pth'}")


def test_a_suite_scored_together_in_one_command(both: tuple[ForeignModel, Any, Path], tmp_path: Path) -> None:
    from hypvl.cli.evaluate import main

    sugarcrepe.make(tmp_path / "datasets")
    config = str(ROOT / "configs" / "eval_sugarcrepe.py")
    with inside(tmp_path):
        code = main(
            ["--config", config, "--model", f"lavis:{both[2]}", "--device", "cpu", "--num-workers", "0",
             "--no-download", "--output-dir", str(tmp_path / "out"), "scored_by=pair_scorer"]
        )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert code == 0 and results["sugarcrepe"]["meta"]["pair_scorer"] == "BLIP's matching head"


@torch.no_grad()
def test_blip2_and_its_frozen_image_encoder(tmp_path: Path) -> None:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    count = tiny.bert_tokenizer(tmp_path)
    torch.manual_seed(0)
    vision_config = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    qformer = {
        "vocab_size": count + 1, "hidden_size": 64, "encoder_hidden_size": 128, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 1, "max_position_embeddings": 36, "use_qformer_text_input": True,
    }  # fmt: skip
    config = Blip2Config(
        vision_config=vision_config, qformer_config=qformer, num_query_tokens=4, image_text_hidden_size=12
    )
    library = random_(Blip2ForImageTextRetrieval(config))
    images = random_(vision(norm=True))
    for block in images.blocks:
        block.attn.qkv.bias[128:256] = 0
    state = blip2_file(library, images)
    trained = {name: tensor for name, tensor in state.items() if not name.startswith("visual_encoder.")}
    torch.save({"model": trained}, tmp_path / "blip2_pretrained.pth")
    with pytest.raises(CheckpointError, match=r"blip2_pretrained\.pth: state_dict: has no visual_encoder"):
        load_foreign(f"lavis:{tmp_path / 'blip2_pretrained.pth'}")
    frozen = {name.removeprefix("visual_encoder."): t for name, t in state.items() if name not in trained}
    torch.save(frozen, tmp_path / "eva_vit_g.pth")  # of two blocks, the last of which LAVIS leaves out
    foreign = load_foreign(f"lavis:{tmp_path / 'blip2_pretrained.pth'}")
    assert {"blip2_pretrained.pth", "eva_vit_g.pth"} <= set(foreign.about["files"])
    model: Any = foreign.model
    pixels_given = Squeeze.of(model)(tiny.as_tensor(tiny.photo()))[None]
    pixels = (pixels_given / 255 - model.visual.pixel_mean) / model.visual.pixel_std
    # the image encoder of the parts that the names come from, the rest by the forward of transformers
    states = images.blocks[0](images._pos_embed(images.patch_embed(pixels)))
    library.vision_model.load_state_dict(foreign.library_model.vision_model.state_dict())  # type: ignore[union-attr]
    torch.testing.assert_close(
        library.vision_model(pixels).last_hidden_state,
        library.vision_model.post_layernorm(states),
        rtol=0,
        atol=1e-5,
    )
    text = model.encode_text(model.tokenizer(["a red photo", "green"]))
    image = model.encode_image(pixels_given)
    scorer = model.pair_scorer
    matched = scorer.score(scorer.image_states(pixels_given).expand(2, -1, -1), ["a red photo", "green"])
    for i, words in enumerate(["a red photo", "green"]):
        ids = model.tokenizer([words])
        both = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        wanted = library(**both).logits_per_image.flatten()
        ours = model.scores(image, text[[i]], query_modality="image", key_modality="text").flatten()
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
        logit = library(**both, use_image_text_matching_head=True).logits_per_image[0, 1]
        torch.testing.assert_close(matched[i], logit, rtol=0, atol=1e-5)
