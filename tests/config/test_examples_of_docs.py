"""Every override in the table of docs/configs.md, through the config layer and the checks of a run."""

import re
import shlex
from pathlib import Path

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
TABLE = (
    (ROOT / "docs" / "configs.md")
    .read_text(encoding="utf-8")
    .split("| you write | it does |")[1]
    .split("\n\n")[0]
)
EXAMPLES = [shlex.split(cell)[0] for cell in re.findall(r"^\| `([^`]+)` \|", TABLE, flags=re.MULTILINE)]


def test_the_table_is_found() -> None:
    assert len(EXAMPLES) >= 12 and "~train.grad_clip_norm" in EXAMPLES


@pytest.mark.parametrize(
    "override", [*EXAMPLES, "~train.wandb", "~train.wandb.mode", "~train.ddp", "~train.audit"]
)
def test_an_example_is_what_a_run_takes(override: str) -> None:
    cfg = LazyConfig.apply_overrides(LazyConfig.load(ROOT / "configs" / "train_meru_vit_l.py"), [override])
    TrainConfig.read(cfg.train)
    cfg.model.visual.arch, cfg.model.visual.image_size = "vit_tiny_patch16_224", 32
    cfg.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    cfg.model.textual.arch = "L1_W32_A2"
    for node in (cfg.model, cfg.dataset, cfg.optim, cfg.train.objective):
        instantiate(node)
