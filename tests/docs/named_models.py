"""Tiny models under the names that the docs give: in a cache of the Hugging Face hub, in open_clip, in files."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.evaluation.test_vqa_t5 import save_t5
from tests.models.convert.test_lavis import Blip
from tests.models.foreign import tiny, tiny_onnx
from tests.models.foreign.test_xvlm import XVLM
from tests.models.test_matching import random_

_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
_SIGLIP = {**_CLIP, "init_logit_bias": -10}
#: Architectures of open_clip -> the tiny ones in their place.
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "ViT-B-32": _CLIP,
    "ViT-B-32-quickgelu": {**_CLIP, "quick_gelu": True},
    "ViT-B-16-SigLIP": _SIGLIP,
}
#: Repositories with weights of open_clip's ViT-B-32.
_WEIGHTS = ("timm/vit_base_patch32_clip_224.openai", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K")


def make_named_models(root: Path) -> None:
    """``huggingface/hub`` and ``open_clip/`` for :func:`use_named_models`; files in ``checkpoints/``; ``t5-large/``."""
    hub, checkpoints = root / "huggingface" / "hub", root / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    tiny.clip(_snapshot(hub, "openai/clip-vit-base-patch32"))
    tiny.siglip(_snapshot(hub, "google/siglip-base-patch16-224"))
    (root / "open_clip").mkdir()
    for name, config in OPEN_CLIP.items():
        (root / "open_clip" / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    weights = _open_clip_weights(_CLIP)
    for repository in _WEIGHTS:
        folder = _snapshot(hub, repository)
        folder.mkdir()
        safetensors.torch.save_file(weights, folder / "open_clip_model.safetensors")
    safetensors.torch.save_file(_open_clip_weights(_SIGLIP), checkpoints / "siglip.safetensors")
    _files(checkpoints)
    (root / "t5-large").mkdir()
    save_t5(root / "t5-large")


def environment(root: Path) -> dict[str, str]:
    """Where the packages find them."""
    return {"HF_HOME": str(root / "huggingface"), "HYPVL_DOCS_OPEN_CLIP": str(root / "open_clip")}


def use_named_models() -> None:
    """In the process that runs the commands: architectures of open_clip that are tiny."""
    if folder := os.environ.get("HYPVL_DOCS_OPEN_CLIP"):
        import open_clip

        open_clip.add_model_config(folder)


def _snapshot(hub: Path, repository: str) -> Path:
    """The folder of a repository in the cache, as huggingface_hub lays it out; not there yet."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    (folder / "snapshots").mkdir()
    return folder / "snapshots" / ("0" * 40)


def _open_clip_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    import open_clip

    torch.manual_seed(0)
    return {name: t.contiguous() for name, t in open_clip.CLIP(**config).state_dict().items()}


def _files(checkpoints: Path) -> None:
    """BLIP and X-VLM with a tokenizer beside them, and a pair of encoders in ONNX."""
    count = tiny.bert_tokenizer(checkpoints)
    torch.manual_seed(0)
    blip = {"model": random_(Blip(count + 2)).file(), "config": {"image_size": 16}}
    torch.save(blip, checkpoints / "model_base_retrieval_coco.pth")
    xvlm = {"model": random_(XVLM(count)).file(masked_words=False), "config": {"image_res": 32}}
    torch.save(xvlm, checkpoints / "itr_coco.th")
    pair = checkpoints / "hycoclip_vit_s"
    shutil.rmtree(pair, ignore_errors=True)
    pair.mkdir()
    tiny_onnx.image_encoder(pair / "image.onnx")
    tiny_onnx.text_encoder(pair / "text.onnx")
