"""Image encoders of torch.hub: a local folder with a ``hubconf.py``, or a repository in the cache of torch.hub."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.data.transforms import Interpolation
from hypvl.encoders.image import fetches_pretrained_weights
from hypvl.encoders.image_base import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, real_device
from hypvl.encoders.image_torchvision import probe_width
from hypvl.errors import ConfigError, UserError

_BRANCHES = ("main", "master")


def list_hub_repositories() -> list[str]:
    """Folders of repositories in the cache of torch.hub, as torch names them: ``owner_name_branch``."""
    cache = Path(torch.hub.get_dir())
    return sorted(path.parent.name for path in cache.glob("*/hubconf.py"))


# Not configurable: it runs the code of a folder, and a config inside a checkpoint may not say which.
class TorchHubImageEncoder(ImageEncoder):
    """An image network of ``torch.hub``: what an entry point of a ``hubconf.py`` gives for images (B, 3, H, W).

    **The folder is code, and building the encoder runs it.** Therefore nothing is downloaded here, and only configs in
    Python may name this class; for one inside a checkpoint you put its name into ``HYPVL_EXTRA_TARGETS``
    (docs/configs.md).

    The module is ``self.trunk``; a forward pass finds ``self.width``.

    Args:
        repo: A local folder with a ``hubconf.py``; or ``"owner/name"`` or ``"owner/name:branch"`` of a repository that
            torch.hub has in its cache.
        entry: Name of a function in ``hubconf.py`` that gives an ``nn.Module``.
        pretrained: What the entry point gets under that name; None = it takes no such argument.
        hub_args: Its other arguments.
        without: Names of modules that become the identity, such as ``["fc"]`` for the classifier of a ResNet.
        image_size: Height and width in pixels of training and evaluation; checked by the network itself.
        pixel_mean, pixel_std: Per channel, of pixels in [0, 1].
        interpolation: Of the images that it was trained on.

    Raises:
        ConfigError: When there is no such folder, entry point, argument or module.
        UserError: When the code fails, for example because its weights are not there.
        ValueError: When it gives something else than one vector for each image.
    """

    def __init__(
        self,
        repo: str,
        entry: str,
        *,
        pretrained: bool | None = True,
        hub_args: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        image_size: int = 224,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        one_of("interpolation", interpolation, Interpolation)
        super().__init__(image_size, pixel_mean=pixel_mean, pixel_std=pixel_std, fixed_size=False)
        if interpolation != "bicubic":
            self.interpolation = interpolation
        args = dict(hub_args or {})
        if pretrained is not None:
            args["pretrained"] = bool(pretrained) and fetches_pretrained_weights()
        self.trunk = _load(_folder(repo), entry, args)
        for name in without:
            _remove(self.trunk, name)
        self.width = probe_width(self, f"{entry} of {repo}")

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> trunk features (B, width)."""
        return self.trunk(pixels)


def _folder(repo: str) -> Path:
    """The folder of a repository: local, or in the cache."""
    local = Path(repo).expanduser()
    if local.is_dir():
        return local
    name, _, branch = str(repo).partition(":")
    if name.count("/") == 1:
        start = Path(torch.hub.get_dir()) / name.replace("/", "_")
        for one in [branch] if branch else _BRANCHES:
            folder = start.with_name(f"{start.name}_{one.replace('/', '_')}")
            if folder.is_dir():
                return folder
    raise ConfigError(
        f"visual.repo is {repo!r}, but there is no such folder, and torch.hub has no such repository in its cache "
        f"{torch.hub.get_dir()}; give a folder, or call torch.hub.load once yourself, which downloads the code."
    )


def _load(folder: Path, entry: str, args: dict[str, Any]) -> nn.Module:
    if not (folder / "hubconf.py").is_file():
        raise ConfigError(
            f"visual.repo: the folder {folder} has no hubconf.py; expected a repository for torch.hub."
        )
    try:
        with real_device():
            network = torch.hub.load(str(folder), entry, source="local", **args)
    except TypeError as error:
        raise ConfigError(f"visual.entry {entry!r} of {folder} does not take {args} ({error}).") from error
    # OSError: weights that are neither there nor can be fetched; ImportError: what the code needs is not installed.
    except (OSError, ImportError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        if "Cannot find callable" in str(error):  # torch's words
            raise ConfigError(
                f"visual.entry is {entry!r}, but {folder / 'hubconf.py'} defines {_functions(folder)}."
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"visual.entry {entry!r} of {folder}: its code failed ({type(error).__name__}: {reason}); check that its "
            "weights and packages are there, or set visual.pretrained=false."
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"visual.entry {entry!r} of {folder} gives a {type(network).__name__}; expected an nn.Module for images."
        )
    return network


def _functions(folder: Path) -> str:
    """Names of the functions in a ``hubconf.py``, for a message."""
    tree = ast.parse((folder / "hubconf.py").read_bytes())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    return ", ".join(names) or "no functions"


def _remove(trunk: nn.Module, name: str) -> None:
    """Replace a module by the identity, in place."""
    parent, _, last = name.rpartition(".")
    try:
        trunk.get_submodule(name)
    except AttributeError as error:
        there = ", ".join(child for child, _ in trunk.named_children())
        raise ConfigError(f"visual.without has {name!r}, but {type(trunk).__name__} has {there}.") from error
    setattr(trunk.get_submodule(parent), last, nn.Identity())
