"""Encoders of other libraries as towers of a model: three training steps, data that follows them, saving."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hypvl.data.batch import collate
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import RandomResizedCrop
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.image_torchvision import TorchvisionImageEncoder
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.encoders.text_sentence import SentenceTransformerTextEncoder
from hypvl.errors import ConfigError
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import from_pretrained, save_pretrained
from hypvl.training.data_fit import check_data_fits, take_from_model
from hypvl.training.step import Learner
from tests.data.helpers import jpeg
from tests.encoders.texts import TEXTS, saved_model

SIZE = 64


def dual(textual: nn.Module, visual: nn.Module | None = None) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(
        TorchvisionImageEncoder("squeezenet1_1", image_size=SIZE) if visual is None else visual,
        textual,
        visual_head=lambda width: ProjectionHead(width, 8),
        textual_head=lambda width: ProjectionHead(width, 8),
        geometry=Sphere(),
        scorer=Cosine(),
    )


def table(folder: Path, **options: Any) -> ImageTextTable:
    rows = ["image,caption"]
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.jpg").write_bytes(jpeg(i, 40, 50))
        rows.append(f"{i}.jpg,{text}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ImageTextTable(folder / "train.csv", image_transform=RandomResizedCrop(None), **options)


@pytest.mark.parametrize(("kind", "pooler"), [("bert", "cls"), ("roberta", "prompt"), ("gpt2", "last")])
def test_both_towers_learn_from_data_that_follows_them(tmp_path: Path, kind: str, pooler: Any) -> None:
    folder = str(saved_model(tmp_path / kind, kind))
    model = dual(HuggingFaceTextEncoder(folder, pooler=pooler, context_length=40, grad_checkpointing=True))
    dataset = table(tmp_path)
    take_from_model(model, dataset)
    check_data_fits(model, dataset)
    tokenizer: Any = dataset.tokenizer
    samples = [dataset.sample(row, np.random.default_rng(row)) for row in range(len(TEXTS))]
    batch = collate(samples, positions=range(4), rows=range(4), pad_token=tokenizer.pad_token)
    assert batch["image"].shape == (4, 3, SIZE, SIZE)
    assert batch["text_lengths"].tolist() == [len(tokenizer.encode(text)) for text in TEXTS]

    learner = Learner(model, Objective({"contrastive": Contrastive()}))
    learner.train()
    for module in learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    losses = []
    for _ in range(3):
        output, _ctx = learner(batch)
        output.total.backward()
        assert [name for name, p in learner.named_parameters() if p.requires_grad and p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.total.item())
    assert losses[2] < losses[0]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    from hypvl.data.tokenizer import get_tokenizer
    from hypvl.data.tokenizer_huggingface import HuggingFaceTokenizer

    bert, roberta = (str(saved_model(tmp_path / kind, kind)) for kind in ("bert", "roberta"))
    model = dual(HuggingFaceTextEncoder(roberta, context_length=40))
    for wrong in (HuggingFaceTokenizer(bert, 40), get_tokenizer(40)):
        with pytest.raises(ConfigError, match=r"model\.textual"):
            check_data_fits(model, table(tmp_path, tokenizer=wrong))
    check_data_fits(model, table(tmp_path, tokenizer=HuggingFaceTokenizer(roberta, 40)))


def definition(textual: dict[str, Any]) -> dict[str, Any]:
    head = {"_target_": "hypvl.encoders.heads.ProjectionHead", "_partial_": True, "out_features": 8}
    return {
        "_target_": "hypvl.models.dual_encoder.DualEncoder",
        "visual": {
            "_target_": "hypvl.encoders.image_torchvision.TorchvisionImageEncoder", "arch": "regnet_y_400mf",
            "image_size": 64, "weights": "DEFAULT",
        },
        "textual": textual,
        "visual_head": head,
        "textual_head": head,
        "geometry": {"_target_": "hypvl.geometry.sphere.Sphere"},
        "scorer": {"_target_": "hypvl.geometry.scorers.Cosine"},
    }  # fmt: skip


@torch.no_grad()
def test_models_are_saved_and_loaded_without_fetching_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also through the allow-list: both encoders may stand in a config that is data."""
    from hypvl.models.hub import build_model, load_config

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "no weights of torchvision here"))
    folder = str(saved_model(tmp_path / "bert", "bert"))
    config = definition(
        {
            "_target_": "hypvl.encoders.text_huggingface.HuggingFaceTextEncoder",
            "name": folder,
            "context_length": 30,
        }
    )
    torch.manual_seed(1)
    model = build_model(load_config(config), source="test", weights_follow=True).eval()
    save_pretrained(model, config, tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    tokens = again.tokenizer(TEXTS)
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
    assert again.interpolation == "bilinear"


def test_sentence_models_are_saved_and_loaded(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, WordEmbeddings

    (tmp_path / "vectors.txt").write_text("cat 1 0\ndog 0 1\n", encoding="utf-8")
    words = WordEmbeddings.from_text_file(str(tmp_path / "vectors.txt"))
    SentenceTransformer(modules=[words, Pooling(2)], device="cpu").save(str(tmp_path / "glove"))
    target = "hypvl.encoders.text_sentence.SentenceTransformerTextEncoder"
    config = definition({"_target_": target, "name": str(tmp_path / "glove"), "context_length": 9})
    config["visual"] = None
    config["visual_head"] = None
    model = dual(SentenceTransformerTextEncoder(str(tmp_path / "glove"), context_length=9)).eval()
    model.visual = model.visual_head = None
    save_pretrained(model, config, tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    tokens = again.tokenizer(["cat dog", "nothing known"])
    assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
