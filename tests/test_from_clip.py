"""MERU from the weights of a cosine model ranks as that model does before its first step."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.encoders.adapters.methods import adapter_state_dict
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def tiny(name: str) -> DictConfig:
    cfg = LazyConfig.load(CONFIGS / f"train_{name}.py")
    cfg.model.visual.update(width=32, depth=1, heads=2, image_size=32)
    cfg.model.textual.arch = "L1_W32_A2"
    return cfg


def trained_a_little(model: DualEncoder, images: Tensor, texts: Tensor) -> None:
    """A few steps on the pairs, so that cosines spread as a trained model's do."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(6):
        logits = model.scorer.logits(
            model.geometry,
            model.encode_image(images),
            model.encode_text(texts),
            query_modality="image",
            key_modality="text",
        )
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def allowed(cfg: DictConfig) -> list[str]:
    return [name.removeprefix("model.") for name in cfg.train.init_missing]


@pytest.mark.parametrize(
    ("recipe", "trained"),
    [("meru_from_clip", False), ("meru_from_clip", True), ("meru_from_clip_lora", True)],
)
def test_the_demo_model_ranks_as_the_clip_it_starts_from(recipe: str, trained: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 3, 32, 32), generator=generator, dtype=torch.uint8)
    texts = torch.randint(1, 400, (100, 8), generator=generator)
    texts[:, -1] = 49407
    clip: DualEncoder = instantiate(tiny("clip_demo").model)
    if trained:
        trained_a_little(clip, images[:32], texts[:32])
    torch.save({"model": clip.state_dict()}, tmp_path / "clip.pth")
    cfg = tiny(f"{recipe}_demo")
    meru: DualEncoder = instantiate(cfg.model)
    report = load_weights(meru, tmp_path / "clip.pth", allow_missing=allowed(cfg))
    adapters = set(adapter_state_dict(meru))
    assert len(adapters) == (8 if "lora" in recipe else 0)
    assert set(report.missing) == adapters | {
        "geometry.log_curv",
        *(f"{tower}_head.{name}" for tower in ("visual", "textual") for name in ("log_scale", "norm_power")),
    }
    answers = []
    with torch.no_grad():
        for model in (clip.eval(), meru.eval()):
            x, y = model.encode_image(images), model.encode_text(texts)
            prompts = model.encode_text(texts, stage="features").split(5)  # 20 classes of 5 prompts
            answers.append(
                torch.cat(
                    (
                        model.scores(x, y, query_modality="image", key_modality="text").argmax(-1),
                        model.scores(y, x, query_modality="text", key_modality="image").argmax(-1),
                        model.class_scores(x, prompts).argmax(-1),
                    )
                )
            )
    assert (answers[0] == answers[1]).double().mean() >= 0.99
    assert len(answers[0].unique()) > 3


@pytest.mark.filterwarnings(
    "ignore:.*copying from a non-meta parameter"
)  # nothing is copied: names and shapes
@pytest.mark.parametrize(
    ("recipe", "adapters"), [("meru_from_clip", 0), ("meru_from_clip_lora", 12 * 2 * 2 * 2)]
)
def test_the_full_recipe_takes_a_clip_vit_b_32(recipe: str, adapters: int) -> None:
    """Names and shapes of the real size, without its arithmetic: only the new scalars and adapters are missing."""
    from open_clip.model import CLIP

    vision = {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224}
    text = {"layers": 12, "width": 512, "heads": 8}
    with torch.device("meta"):
        theirs = CLIP(512, vision, text, quick_gelu=True).state_dict()
        cfg = LazyConfig.load(CONFIGS / f"train_{recipe}_vit_b_32.py")
        meru = instantiate(cfg.model)
    report = load_weights(meru, theirs, allow_missing=allowed(cfg))
    assert len(report.missing) == adapters + 5
    assert report.loaded == len(meru.state_dict()) - adapters - 5
    assert not report.unexpected and not report.misshaped
