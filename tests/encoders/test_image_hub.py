"""torch.hub: a folder of code, its entry points and weights, and that no stored config runs it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.config import LazyConfig
from hypvl.config.targets import EXTRA_VARIABLE, allowed_targets
from hypvl.encoders.image import without_pretrained_weights
from hypvl.encoders.image_hub import TorchHubImageEncoder, list_hub_repositories
from hypvl.errors import ConfigError, UserError

HUBCONF = '''
from pathlib import Path
import torch

def tiny(pretrained=False, width=6):
    """A small network."""
    network = torch.nn.Sequential()
    network.add_module("stem", torch.nn.Conv2d(3, width, 4, 4))
    network.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", torch.nn.Flatten())
    network.add_module("fc", torch.nn.Linear(width, 10))
    if pretrained:
        network.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return network

def patches(pretrained=False):
    return torch.nn.Conv2d(3, 4, 4, 4)

def words():
    return ["no", "network"]
'''
NAME = "hypvl.encoders.image_hub.TorchHubImageEncoder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(HUBCONF, encoding="utf-8")
    return tmp_path


def encoder(repo: Any, entry: str = "tiny", **options: Any) -> TorchHubImageEncoder:
    return TorchHubImageEncoder(str(repo), entry, **({"pretrained": False, "image_size": 16} | options))


def test_an_entry_point_becomes_an_encoder(folder: Path) -> None:
    torch.manual_seed(0)
    whole, bare = encoder(folder), encoder(folder, without=["fc"], hub_args={"width": 8})
    assert (whole.width, bare.width) == (10, 8)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    pixels = (images / 255 - bare.pixel_mean) / bare.pixel_std
    torch.testing.assert_close(bare(images), bare.trunk.stem(pixels).mean(dim=(2, 3)))
    assert [name for name, _ in bare.trunk.named_parameters()] == ["stem.weight", "stem.bias"]


def test_weights_are_those_of_the_folder(folder: Path) -> None:
    source = encoder(folder)
    torch.save(source.trunk.state_dict(), folder / "weights.pt")
    loaded = encoder(folder, pretrained=True)
    assert torch.equal(loaded.trunk.fc.weight, source.trunk.fc.weight)
    (folder / "weights.pt").unlink()
    with without_pretrained_weights():  # a checkpoint's follow
        assert not torch.equal(encoder(folder, pretrained=True).trunk.fc.weight, source.trunk.fc.weight)


def test_a_repository_is_taken_from_the_cache_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    place = cache / "someone_net_main"
    place.mkdir(parents=True)
    (place / "hubconf.py").write_text(HUBCONF, encoding="utf-8")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(cache))
    assert list_hub_repositories() == ["someone_net_main"]
    assert encoder("someone/net").width == encoder("someone/net:main").width == 10
    with pytest.raises(
        ConfigError, match=r"'someone/net:v2', but there is no such folder, and torch\.hub has no such"
    ):
        encoder("someone/net:v2")


@pytest.mark.parametrize(
    ("entry", "options", "error", "message"),
    [
        (
            "tiny",
            {"pretrained": True},
            UserError,
            r"its code failed \(FileNotFoundError: .*weights\.pt.*check that its",
        ),
        ("huge", {}, ConfigError, r"visual\.entry is 'huge', but .*hubconf\.py defines tiny, patches, words"),
        ("tiny", {"hub_args": {"depth": 2}}, ConfigError, r"does not take .*depth"),
        (
            "tiny",
            {"without": ["head"]},
            ConfigError,
            r"visual\.without has 'head', but Sequential has stem, pool, flat, fc",
        ),
        ("words", {"pretrained": None}, ConfigError, "gives a list; expected an nn.Module"),
        (
            "patches",
            {},
            ValueError,
            r"patches of .* gives shape \[1, 4, 4, 4\] for one image; expected one vector",
        ),
        ("tiny", {"image_size": 2}, ValueError, "image_size: got 2, with which tiny of .* cannot run"),
    ],
)
def test_what_is_no_encoder(
    folder: Path, entry: str, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder(folder, entry, **options)


def test_a_folder_without_hubconf(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no hubconf\.py; expected a repository for torch\.hub"):
        encoder(tmp_path)


def test_no_config_that_is_data_runs_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's config would choose the code; only the user can, by name."""
    config = {"model": {"_target_": "hypvl.models.dual_encoder.DualEncoder", "visual": {"_target_": NAME}}}
    assert NAME not in allowed_targets()
    with pytest.raises(ConfigError, match=rf"target '{NAME}' .* is not on the allow-list"):
        LazyConfig.from_dict(config, source="checkpoint")
    monkeypatch.setenv(EXTRA_VARIABLE, NAME)
    assert LazyConfig.from_dict(config, source="checkpoint").model.visual["_target_"] == NAME
