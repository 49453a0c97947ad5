"""Image encoders from torchvision, by name, without their classifier."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number
from hypvl.encoders.image import fetches_pretrained_weights
from hypvl.encoders.image_base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_SIDE,
    ImageEncoder,
    real_device,
)
from hypvl.errors import ConfigError, UserError

# Arguments of a builder that load files, change the outputs, or have another name here.
_TAKEN = {
    "weights",
    "progress",
    "num_classes",
    "aux_logits",
    "image_size",
    "input_size",
    "transform_input",
    "backbone",
}
# Where torchvision's models keep their classifier.
_CLASSIFIERS = ("fc", "classifier", "head", "heads")
_SIZED = {"VisionTransformer": "image_size", "MaxVit": "input_size"}


def list_torchvision_archs() -> list[str]:
    """Every name that :class:`TorchvisionImageEncoder` takes: torchvision's models of image classes."""
    return models.list_models(module=models)


@configurable("model")
class TorchvisionImageEncoder(ImageEncoder):
    """Any image classifier of torchvision without its last layer: the features are that layer's input.

    The module is ``self.trunk``, in which the last layer is an ``nn.Identity``; a forward pass finds ``self.width``.
    Only the layer that gives the scores of classes goes. What stands before it stays, dropout too:

    - AlexNet and VGG keep their two hidden layers (4096 features), MobileNetV3 its one (1024 or 1280), MaxViT its one.
    - SqueezeNet's class layer is a convolution: the features are its input, averaged over the image (512).
    - Auxiliary classifiers (Inception v3, GoogLeNet) go, too.

    Args:
        arch: A name of :func:`list_torchvision_archs`.
        weights: A name of torchvision's weights for it, such as ``"IMAGENET1K_V2"`` or ``"DEFAULT"`` (downloaded on
            first use); None = random.
        image_size: Height and width in pixels; None = as the weights saw, or the default weights of the architecture.
            Networks that take any size only record it.
        pixel_mean, pixel_std: Per channel, of pixels in [0, 1]; None = as the weights saw, or ImageNet.
        torchvision_args: Further arguments of torchvision's builder, for example ``{"dropout": 0.1}``.

    Images are resized with the interpolation that the weights saw. torchvision offers no gradient checkpointing.

    Raises:
        ConfigError: When the name of the model or the weights is unknown (the closest are named), or the builder does
            not take an argument.
        ValueError: For sizes and arguments with which the network cannot run.
        UserError: When the weights cannot be fetched.
    """

    def __init__(
        self,
        arch: str,
        *,
        weights: str | None = None,
        image_size: int | None = None,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        torchvision_args: Mapping[str, Any] | None = None,
    ) -> None:
        known = _weights_of(arch)
        chosen = None if weights is None else _choose(arch, known, weights)
        seen: Any = (known.DEFAULT if chosen is None else chosen).transforms()
        if image_size is None:
            image_size = seen.crop_size[0]
        image_size = whole_number("image_size", image_size, least=1, most=LARGEST_SIDE)
        trunk = _build(arch, chosen, image_size, _checked(torchvision_args or {}))
        asked = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        if pixel_mean is None:
            pixel_mean = IMAGENET_MEAN if chosen is None else seen.mean
        if pixel_std is None:
            pixel_std = IMAGENET_STD if chosen is None else seen.std
        super().__init__(
            image_size, pixel_mean=pixel_mean, pixel_std=pixel_std, fixed_size=type(trunk).__name__ in _SIZED
        )
        if chosen is not None and seen.interpolation.value == "bilinear":
            self.interpolation = "bilinear"
        self.asked_pixels = frozenset(name for name, values in asked.items() if values is not None)
        self.arch = arch
        self.trunk = trunk
        remove_classifier(trunk)
        self.width = probe_width(self, f"torchvision's {arch}")

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> trunk features (B, width)."""
        return self.trunk(pixels)


def remove_classifier(trunk: nn.Module) -> None:
    """Replace the last layer of a classifier of torchvision by the identity, auxiliary classifiers by None, in place.

    Raises:
        ValueError: for a network without a linear layer or convolution where torchvision's have their classifier.
    """
    for name in ("AuxLogits", "aux1", "aux2"):
        if isinstance(getattr(trunk, name, None), nn.Module):
            setattr(trunk, name, None)
    if hasattr(trunk, "aux_logits"):
        vars(trunk)["aux_logits"] = False
    layers = [
        name
        for name, module in trunk.named_modules()
        if name.split(".")[0] in _CLASSIFIERS and isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise ValueError(
            f"arch: {type(trunk).__name__} has no classifier to remove; expected a model of image classes."
        )
    parent, _, last = layers[-1].rpartition(".")
    setattr(trunk.get_submodule(parent), last, nn.Identity())


@torch.no_grad()
def probe_width(encoder: ImageEncoder, name: str) -> int:
    """Width of the features, by a forward pass of one black image in evaluation mode.

    Raises:
        ValueError: where the network cannot take an image of ``image_size``, or gives no vector for each image.
    """
    was_training = encoder.training
    encoder.eval()
    size = encoder.image_size
    parameter = next(encoder.parameters(), encoder.pixel_mean)
    try:
        with real_device():
            black = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
            features: Any = encoder.encode(black)
    # torch and torchvision raise these where the image is too small, or of another size than the network was made for.
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"image_size: got {size}, with which {name} cannot run ({reason}).") from error
    encoder.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
        got = (
            f"shape {list(features.shape)}"
            if isinstance(features, Tensor)
            else f"a {type(features).__name__}"
        )
        raise ValueError(f"arch: {name} gives {got} for one image; expected one vector, (1, width).")
    return features.shape[1]


def _weights_of(arch: str) -> Any:
    """The enumeration of torchvision's weights for a name."""
    if not isinstance(arch, str) or arch not in list_torchvision_archs():
        near = difflib.get_close_matches(str(arch), list_torchvision_archs(), n=3, cutoff=0.3)
        raise ConfigError(
            f"visual.arch is {arch!r}, which is not an image classifier of torchvision; the closest names are "
            f"{', '.join(near) or '(none)'}."
        )
    return models.get_model_weights(arch)


def _choose(arch: str, known: Any, weights: str) -> Any:
    names = [*known.__members__]
    if weights not in names:
        raise ConfigError(
            f"visual.weights is {weights!r}, but torchvision's weights of {arch} are {', '.join(names)}."
        )
    return known[weights]


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that shape the network; a value that names code or files cannot be among them."""
    if not isinstance(given, Mapping):
        raise ValueError(f"torchvision_args: got {given!r}; expected a mapping of arguments.")
    if taken := sorted(_TAKEN.intersection(given)):
        raise ConfigError(
            f"visual.torchvision_args has {', '.join(taken)}, but may only hold arguments that shape the network: use "
            "the encoder's own weights and image_size."
        )
    for name, value in given.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            number(f"torchvision_args.{name}", value, least=0, most=2**20)
    return dict(given)


def _build(arch: str, weights: Any, image_size: int, args: dict[str, Any]) -> nn.Module:
    if arch in ("inception_v3", "googlenet"):
        # With weights torchvision says so itself, and the images are normalised once more inside.
        args |= {"init_weights": weights is None, "transform_input": weights is not None, "aux_logits": True}
    sized = "input_size" if arch.startswith("maxvit") else "image_size" if arch.startswith("vit_") else None
    if sized is not None:
        args[sized] = (image_size, image_size) if sized == "input_size" else image_size
    fetched = weights if fetches_pretrained_weights() else None
    try:
        with real_device():
            return models.get_model(arch, weights=fetched, **args)
    except TypeError as error:  # an argument that this builder does not take
        raise ConfigError(f"visual.arch {arch!r} does not take {args}: {error}.") from error
    except OSError as error:  # no network, no room for the file
        raise UserError(
            f"torchvision's weights {weights} of visual.arch {arch!r} could not be fetched ({error}); go online once "
            "or set visual.weights=null."
        ) from error
    except (RuntimeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"image_size: got {image_size}, and torchvision_args: got {args}; torchvision cannot build {arch} with "
            f"them ({reason})."
        ) from error
