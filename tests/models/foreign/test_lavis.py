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
from tests.models.convert.test_lavis import Blip, bert_states
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
