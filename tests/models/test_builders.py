"""Names of what each builder makes."""

from pathlib import Path

import huggingface_hub
import pytest
import torch

import hypvl


def test_names_of_libraries_by_pattern() -> None:
    assert "meru_vit_l" in hypvl.list_models() and hypvl.list_models("meru_vit_?") == hypvl.list_models(
        "meru_vit_?"
    )
    assert hypvl.list_models("resnet50", builder="timm") == ["resnet50"]
    assert hypvl.list_models("wide_*", builder="torchvision") == ["wide_resnet101_2", "wide_resnet50_2"]
    assert "ViT-B-32" in hypvl.list_models("ViT-B-*", builder="open_clip")


def test_names_in_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    builders = ("huggingface", "sentence_transformers", "torch_hub")
    assert [hypvl.list_models(builder=builder) for builder in builders] == [[], [], []]
    commit = "0" * 40
    for name, file in (("bert", "config.json"), ("glove", "modules.json"), ("other", "README.md")):
        snapshot = tmp_path / "hf" / f"models--owner--{name}" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / file).write_text("{}", encoding="utf-8")
        references = snapshot.parents[1] / "refs"
        references.mkdir()
        (references / "main").write_text(commit, encoding="utf-8")
    (tmp_path / "torch" / "owner_net_main").mkdir(parents=True)
    (tmp_path / "torch" / "owner_net_main" / "hubconf.py").write_text("", encoding="utf-8")
    assert [hypvl.list_models(builder=builder) for builder in builders] == [
        ["owner/bert"], ["owner/glove"], ["owner_net_main"],
    ]  # fmt: skip


def test_another_builder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"builder: got 'keras'; expected 'hypvl', 'timm', "):
        hypvl.list_models(builder="keras")  # type: ignore[arg-type]
