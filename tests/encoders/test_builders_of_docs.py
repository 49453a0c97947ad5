"""The examples of docs/models.md, one for each builder, with tiny models where their names lead to."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from hypvl.config import instantiate
from hypvl.encoders.image import without_pretrained_weights
from tests.encoders.test_image_hub import HUBCONF
from tests.encoders.texts import TEXTS, saved_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
IMAGES = ("timm", "torchvision", "torch_hub")
TEXT = ("simcse", "prompts", "sentences", "glove")


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (block,) = [block for block in blocks if "TorchvisionImageEncoder" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    assert {*IMAGES, *TEXT} <= {*names}
    return names


def test_the_table_names_what_the_examples_use(examples: dict[str, Any]) -> None:
    table = set(re.findall(r"^\| `(\w+Encoder)`", PAGE.read_text(encoding="utf-8"), re.M))
    used = {examples[name]["_target_"].rpartition(".")[2] for name in (*IMAGES, *TEXT)}
    assert used <= table


@torch.no_grad()
@pytest.mark.parametrize("name", IMAGES)
def test_image_encoders(
    name: str, examples: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    cached = tmp_path / "facebookresearch_dino_main"
    cached.mkdir()
    (cached / "hubconf.py").write_text(HUBCONF.replace("def tiny", "def dino_vits16"), encoding="utf-8")
    with without_pretrained_weights():
        encoder = instantiate(examples[name]).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert encoder(images).shape == (2, encoder.width) and encoder.preprocessing.size == 64


@torch.no_grad()
@pytest.mark.parametrize("name", TEXT)
def test_text_encoders(name: str, examples: dict[str, Any], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer, WordEmbeddings

    folder = saved_model(tmp_path / "bert", "bert")
    if name == "sentences":
        modules: list[Any] = [Transformer(str(folder)), Pooling(16)]
    if name == "glove":
        (tmp_path / "vectors.txt").write_text("cat 1 0\ndog 0 1\n", encoding="utf-8")
        modules = [WordEmbeddings.from_text_file(str(tmp_path / "vectors.txt")), Pooling(2)]
    if name in ("sentences", "glove"):
        folder = tmp_path / "saved"
        SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    config = OmegaConf.merge(examples[name], {"name": str(folder), "context_length": 40})
    encoder = instantiate(config).eval()
    assert encoder(encoder.tokenizer(TEXTS)).shape == (len(TEXTS), encoder.width)
