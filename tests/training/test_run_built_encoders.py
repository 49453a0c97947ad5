"""A run whose text tower is a BERT: its data takes tokenizer and images from the model, and its checkpoint loads."""

from pathlib import Path

import pytest
import torch
from loguru import logger

import hypvl
from hypvl.config import LazyCall as L
from hypvl.encoders.image_torchvision import TorchvisionImageEncoder
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.training.run import RunOptions, run_training
from tests.encoders.texts import TEXTS, saved_model
from tests.test_demo_recipes import CONFIGS, shard, tiny

__all__ = ["shard"]  # a fixture


@pytest.mark.slow
def test_train_resume_and_load(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.model.visual = L(TorchvisionImageEncoder)(arch="squeezenet1_1", image_size=48)
    folder = str(saved_model(tmp_path / "bert", "bert"))
    cfg.model.textual = L(HuggingFaceTextEncoder)(name=folder, pooler="mean", context_length=20)
    cfg.dataset.tokenizer = None
    cfg.dataset.image_transform.size = None
    cfg.train.update(num_iterations=4, total_batch_size=4, root_samples=4, init_checkpoint=None)
    options = RunOptions(output_dir=tmp_path / "run")
    run_training(cfg, options)
    cfg.train.num_iterations = 6
    run_training(cfg, RunOptions(output_dir=tmp_path / "run", resume=True))
    logger.remove()
    model = hypvl.create_model(tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "checkpoint_final.pth", weights_only=True)
    assert saved["iteration"] == 6 and model.image_size == 48
    name = "textual.trunk.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.state_dict()[name], saved["model"][name])
    assert torch.isfinite(model.encode_text(model.tokenizer(TEXTS))).all()
