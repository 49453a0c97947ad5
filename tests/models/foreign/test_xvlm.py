"""X-VLM from a file by its own names, against BERT's layers of transformers and timm's Swin."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from hypvl.data.transforms import Squeeze
from hypvl.errors import CheckpointError
from hypvl.models.foreign import load_foreign
from hypvl.models.foreign.record import ForeignModel
from tests.evaluation.miniatures import retrieval
from tests.evaluation.smoke import ROOT, inside
from tests.models.foreign import tiny
from tests.models.test_matching import random_

pytest.importorskip("transformers")
WIDTH, WIDE, SHARED, TEXT_LAYERS = 64, 32, 12, 2


class XVLM(nn.Module):
    """The modules of a file, and its published forward pass."""

    def __init__(self, words: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        self.vision_encoder = SwinTransformer(
            img_size=32,
            patch_size=4,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
            num_classes=0,
        )
        config = BertConfig(
            vocab_size=words, hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=4, num_attention_heads=1,
            max_position_embeddings=50, is_decoder=True, add_cross_attention=True,
        )  # fmt: skip
        self.text_encoder = BertModel(config, add_pooling_layer=False)
        for number, layer in enumerate(self.text_encoder.encoder.layer):
            if number < TEXT_LAYERS:
                del layer.crossattention
            else:
                attention = layer.crossattention.self
                attention.key, attention.value = nn.Linear(WIDE, WIDTH), nn.Linear(WIDE, WIDTH)
        self.vision_proj, self.text_proj = nn.Linear(WIDE, SHARED), nn.Linear(WIDTH, SHARED)
        self.itm_head = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.LayerNorm(2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, 2)
        )

    def file(self, *, masked_words: bool) -> dict[str, Tensor]:
        """Its weights; before fine-tuning the text encoder predicts masked words and is one level deeper."""
        state: dict[str, Tensor] = {"temp": torch.tensor(0.07), "bbox_head.0.weight": torch.zeros(3)}
        for name, tensor in self.state_dict().items():
            name = re.sub(r"layers\.1\.downsample", "layers.0.downsample", name)  # as Swin's own code has it
            if masked_words:
                name = name.replace("text_encoder.", "text_encoder.bert.")
            state[name] = tensor
        windows = "vision_encoder.layers.0.blocks.1.attn"
        state |= {
            f"{windows}_mask": torch.zeros(4, 16, 16),
            f"{windows}.relative_position_index": torch.zeros(16, 16),
        }
        return state | ({"text_encoder.cls.predictions.bias": torch.zeros(3)} if masked_words else {})

    def image(self, pixels: Tensor) -> Tensor:
        patches = self.vision_encoder.forward_features(pixels).flatten(1, 2)
        return torch.cat((patches.mean(1, keepdim=True), patches), dim=1)

    def texts(self, ids: Tensor, image: Tensor | None = None) -> Tensor:
        """States of the first layers, or of all where there is an image."""
        bert = self.text_encoder
        embedded = bert.embeddings
        x = embedded.word_embeddings(ids) + embedded.token_type_embeddings(torch.zeros_like(ids))
        x = embedded.LayerNorm(x + embedded.position_embeddings(torch.arange(ids.shape[1])))
        for layer in bert.encoder.layer[: None if image is not None else TEXT_LAYERS]:
            x = layer.attention(x, attention_mask=x.new_zeros(len(x), 1, 1, x.shape[1]))[0]  # not causal
            if hasattr(layer, "crossattention"):
                x = layer.crossattention(x, encoder_hidden_states=image)[0]
            x = layer.feed_forward_chunk(x)
        return x


@pytest.fixture(scope="module", params=[False, True])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ForeignModel, Any, Path]:
    """The model of hypvl, its parts, and the file: of retrieval, and of pretraining."""
    folder = tmp_path_factory.mktemp("xvlm")
    count = tiny.bert_tokenizer(folder)
    torch.manual_seed(0)
    parts = random_(XVLM(count))
    torch.save(
        {"model": parts.file(masked_words=request.param), "config": {"image_res": 32}}, folder / "itr_coco.th"
    )
    return load_foreign(f"xvlm:{folder / 'itr_coco.th'}"), parts, folder / "itr_coco.th"


@torch.no_grad()
def test_embeddings_and_scores_of_pairs(both: tuple[ForeignModel, Any, Path]) -> None:
    foreign, parts, _ = both
    model: Any = foreign.model
    images = Squeeze.of(model)(tiny.as_tensor(tiny.photo()))[None]
    assert images.shape == (1, 3, 32, 32)
    pixels = (images / 255 - model.visual.pixel_mean) / model.visual.pixel_std
    tokens = parts.image(pixels)
    wanted = F.normalize(parts.vision_proj(tokens[:, 0]), dim=-1)
    torch.testing.assert_close(model.encode_image(images), wanted, rtol=0, atol=1e-5)
    texts = ["a red photo", "green"]
    scorer = model.pair_scorer
    scores = scorer.score(scorer.image_states(images).expand(2, -1, -1), texts)
    assert (scores[0] - scores[1]).abs() > 1e-3
    for text, score in zip(texts, scores, strict=True):
        ids = model.tokenizer([text])
        wanted = F.normalize(parts.text_proj(parts.texts(ids)[:, 0]), dim=-1)
        torch.testing.assert_close(model.encode_text(ids), wanted, rtol=0, atol=1e-5)
        logit = parts.itm_head(parts.texts(ids, tokens)[:, 0])[0, 1]
        torch.testing.assert_close(score, logit, rtol=0, atol=1e-5)
    assert model.context_length == 40 and scorer.image_size == 32


def test_other_files_are_refused(both: tuple[ForeignModel, Any, Path], tmp_path: Path) -> None:
    _, parts, _ = both
    tiny.bert_tokenizer(tmp_path)

    def message(state: dict[str, Tensor]) -> str:
        torch.save({"model": state}, tmp_path / "x.th")
        with pytest.raises(CheckpointError) as error:
            load_foreign(f"xvlm:{tmp_path / 'x.th'}")
        return str(error.value)

    state = parts.file(masked_words=False)
    assert "x.th: state_dict: names visual.proj; expected those of X-VLM" in message(
        {"visual.proj": torch.zeros(2)}
    )
    assert "unexpected prompt.weight" in message({**state, "prompt.weight": torch.zeros(2)})
    assert "missing 'vision_proj.weight'" in message(
        {k: t for k, t in state.items() if "vision_proj" not in k}
    )
    short = {name: tensor for name, tensor in state.items() if name != "itm_head.3.bias"}
    assert "does not fit CrossEncoder (its own names): missing itm_head.3.bias" in message(short)
    plain = {name: tensor for name, tensor in state.items() if "crossattention" not in name}
    assert "layers [] of the text encoder attend to the image" in message(plain)
    unknown = {name: tensor for name, tensor in state.items() if "attn_mask" not in name}
    assert "windows of 4 x 4 patches, and no" in message(unknown)


def test_a_suite_reranked_in_one_command(both: tuple[ForeignModel, Any, Path], tmp_path: Path) -> None:
    from hypvl.cli.evaluate import main

    retrieval.make(tmp_path / "datasets")
    config = str(ROOT / "configs" / "eval_zero_shot_retrieval.py")
    with inside(tmp_path):
        code = main(
            ["--config", config, "--model", f"xvlm:{both[2]}", "--device", "cpu", "--num-workers", "0",
             "--no-download", "--output-dir", str(tmp_path / "out"), "--only", "flickr30k", "rerank=2"]
        )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert code == 0 and results["flickr30k"]["meta"]["rerank"]["scorer"] == "X-VLM's cross encoder"
