"""Names of foreign models."""

from pathlib import Path

import pytest

from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.foreign import LOADERS, load_foreign, parse, slug


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "open-clip:ViT-B-32",
            r"no known prefix \(closest: open_clip:\); expected open_clip: and NAME/WEIGHTS",
        ),
        ("meru_vit_b", "no known prefix; expected .* Models of hypvl are given by --checkpoint-path"),
        ("hf:", "nothing after the colon; expected a hub id or a folder"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(name)


def test_a_place_may_have_colons() -> None:
    assert parse("open_clip:hf-hub:owner/name") == ("open_clip", "hf-hub:owner/name")


def test_every_loader_is_there() -> None:
    from importlib import import_module

    for module, _ in LOADERS.values():
        assert callable(import_module(f"hypvl.models.foreign.{module}").load)


@pytest.mark.parametrize("prefix", ["lavis", "xvlm"])
def test_a_folder_for_one_file(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{prefix}:{tmp_path}: is a folder; expected the file"):
        load_foreign(f"{prefix}:{tmp_path}")


def test_folders_of_results() -> None:
    assert slug("open_clip:ViT-B-32/laion2b_s34b_b79k") == "open_clip_ViT-B-32_laion2b_s34b_b79k"
    assert slug("hf:../models/siglip@main") == "hf_.._models_siglip_main"
