"""Image encoders from timm, by name."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import timm
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, one_of, whole_number
from hypvl.data.transforms import Interpolation, ResizeMode
from hypvl.encoders.image_base import IMAGENET_MEAN, IMAGENET_STD, LARGEST_SIDE, ImageEncoder, sincos_2d
from hypvl.errors import ConfigError, UserError


class Variant(NamedTuple):
    """A timm architecture with other constructor arguments, under a name of its own."""

    base: str
    timm_args: Mapping[str, Any]


_MOST_BLOCKS = 1000
# Names that timm lacks; add one here, or give ``timm_args`` in a config.
VARIANTS: dict[str, Variant] = {
    "vit_small_mocov3_patch16_224": Variant("vit_small_patch16_224", {"num_heads": 12}),
}

# Arguments of timm.create_model that load files, change the outputs, or have another name here.
_TAKEN = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path",
    "cache_dir", "kwargs_filter", "features_only", "out_indices", "num_classes", "in_chans", "img_size",
    "drop_path_rate",
}  # fmt: skip

_FETCH: ContextVar[bool] = ContextVar("fetch pretrained weights", default=True)


@contextlib.contextmanager
def without_pretrained_weights() -> Iterator[None]:
    """Encoders built in this block fetch no weights, even with ``pretrained=True``; nothing else about them changes.

    For a model whose weights come from a file: its definition may name the pretrained weights its training began with.
    """
    token = _FETCH.set(False)
    try:
        yield
    finally:
        _FETCH.reset(token)


def fetches_pretrained_weights() -> bool:
    """Whether encoders fetch pretrained weights here: not inside :func:`without_pretrained_weights`."""
    return _FETCH.get()


def list_image_archs() -> list[str]:
    """Every name that :class:`TimmImageEncoder` takes."""
    return sorted({*timm.list_models(), *VARIANTS})


class ReadOutBlock(Block):
    """timm's last block of a trunk that reads out the class token: after attention only that token is computed."""

    all_tokens = (
        False  # set where they are asked for: a class cannot be changed back once FSDP has changed it, too
    )

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, W) -> the class token (B, 1, W), or all tokens."""
        masks: dict[str, Any] = {} if attn_mask is None else {"attn_mask": attn_mask}
        if is_causal:  # passed only when set: attention takes neither in timm < 1.0.16
            masks["is_causal"] = True
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **masks)))
        if not self.all_tokens:
            x = x[:, :1]  # (B, 1, W)
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


@configurable("model")
class TimmImageEncoder(ImageEncoder):
    """Any timm image model, pooled as that model pools, without its classifier.

    The timm module is ``self.trunk``; ``self.width`` is read from it. Vision transformers that start from
    scratch get the published recipe: class token, LayerNorm eps 1e-5, fixed sine-cosine positions (a frozen
    parameter ``trunk.pos_embed``, computed for the grid of ``image_size``). Where the class token is read out, the
    last block computes only that token after attention, so ``forward_features`` of the trunk returns it alone.

    Args:
        arch: A timm name, with or without a weights tag, or a key of ``VARIANTS``.
        pretrained: Start from timm's weights for that name (downloaded on first use).
        pixel_mean: Mean per channel of pixels in [0, 1]; None = as the pretrained weights saw, or ImageNet.
        pixel_std: Standard deviation per channel; None as for ``pixel_mean``.
        image_size: Height and width in pixels. Models that take any input size only record it.
        interpolation: How images are resized for it; None = as the pretrained weights saw, or bicubic.
        resize_mode: ``"squash"`` = the weights were trained on images squeezed into squares (SigLIP): evaluators then
            squeeze, where they would crop.
        grad_checkpointing: Recompute activations in the backward pass instead of keeping them.
        position: ``"sincos"`` = fixed, ``"learned"`` = as the architecture has them; None = ``"sincos"`` for
            a vision transformer from scratch, else ``"learned"``.
        norm_eps: Epsilon of every LayerNorm; ``"timm"`` = as the architecture has it; None = 1e-5 for a vision
            transformer from scratch, else timm's.
        drop_path_rate: Stochastic depth of the last block, in [0, 1); 0 = none.
        timm_args: Further constructor arguments of the timm model, for example ``{"depth": 2}``.

    Raises:
        ConfigError: When the name is unknown (the closest are named) or the model lacks an asked-for option.
        ValueError: For arguments of which timm cannot build a network that gives one vector for each image.
        UserError: When the pretrained weights cannot be fetched.

    Source: specification of MERU (Desai et al. 2023), section 4.
    """

    def __init__(
        self,
        arch: str,
        *,
        pretrained: bool = False,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        image_size: int = 224,
        interpolation: Interpolation | None = None,
        resize_mode: ResizeMode = "shortest",
        grad_checkpointing: bool = False,
        position: Literal["sincos", "learned"] | None = None,
        norm_eps: float | Literal["timm"] | None = None,
        drop_path_rate: float = 0.0,
        timm_args: Mapping[str, Any] | None = None,
    ) -> None:
        one_of("interpolation", interpolation, Interpolation | None)
        one_of("resize_mode", resize_mode, ResizeMode)
        one_of("position", position, ("sincos", "learned", None))
        number("drop_path_rate", drop_path_rate, least=0, below=1)
        image_size = whole_number("image_size", image_size, least=1, most=LARGEST_SIDE)
        if isinstance(norm_eps, str):
            one_of("norm_eps", norm_eps, ("timm", None))
        elif norm_eps is not None:
            number("norm_eps", norm_eps, above=0)
        base, args = _resolve(arch, pretrained=pretrained)
        args.update(_checked(timm_args or {}))
        defaults = timm.get_pretrained_cfg(base)
        if defaults is not None and defaults.fixed_input_size:
            args["img_size"] = image_size
        if drop_path_rate:
            args["drop_path_rate"] = drop_path_rate
        trunk = _build(arch, base, pretrained=pretrained, args=args)
        _check_grid(trunk, image_size)

        asked = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        seen = defaults if pretrained else None  # how the images behind the weights were normalised
        if pixel_mean is None:
            pixel_mean = IMAGENET_MEAN if seen is None else seen.mean
        if pixel_std is None:
            pixel_std = IMAGENET_STD if seen is None else seen.std
        super().__init__(
            image_size,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            fixed_size="img_size" in args and not getattr(trunk, "dynamic_img_size", False),
        )
        if interpolation is None:
            interpolation = "bilinear" if seen is not None and seen.interpolation == "bilinear" else "bicubic"
        self.interpolation = interpolation
        self.resize_mode = resize_mode
        self.asked_pixels = frozenset(name for name, values in asked.items() if values is not None)
        self.arch = arch
        self.trunk = trunk
        width = trunk.head_hidden_size  # output width of a timm model without its classifier
        assert isinstance(width, int)
        self.width = width

        recipe = isinstance(trunk, VisionTransformer) and not pretrained
        if position == "sincos" or (position is None and recipe and trunk.pos_embed is not None):
            _fix_positions(arch, trunk)
        if norm_eps != "timm" and (norm_eps is not None or recipe):
            _set_norm_eps(trunk, 1e-5 if norm_eps is None else norm_eps)
        if (
            type(trunk) is VisionTransformer
            and trunk.global_pool == "token"
            and len(trunk.blocks) > 0
            and type(trunk.blocks[-1]) is Block
        ):
            trunk.blocks[-1].__class__ = ReadOutBlock  # same parameters, names and hooks
        if grad_checkpointing:
            self.set_grad_checkpointing()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off; ConfigError where the timm model does not support it."""
        switch = getattr(self.trunk, "set_grad_checkpointing", None)
        try:
            assert switch is not None
            switch(enable)
        except AssertionError as error:  # raised by timm, too, where a model does not support it
            raise ConfigError(
                f"visual.arch {self.arch!r} has no gradient checkpointing in timm: turn it off."
            ) from error

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> trunk features (B, width)."""
        features = self.trunk(pixels)
        if features.ndim != 2:
            raise ValueError(
                f"timm_args: {self.arch} gives features of shape {list(features.shape)} for {len(pixels)} images; "
                "expected one vector for each, by a pooling such as global_pool=avg."
            )
        return features

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """Tokens (B, T, width) of a vision transformer; from the first call on its last block computes all of them."""
        if not isinstance(self.trunk, VisionTransformer):
            return super().encode_tokens(pixels)
        for block in self.trunk.blocks:
            if isinstance(block, ReadOutBlock):
                block.all_tokens = True
        return self.trunk.forward_features(pixels)

    def read_out(self, tokens: Tensor) -> Tensor:
        if not isinstance(self.trunk, VisionTransformer):
            return super().read_out(tokens)
        return self.trunk.forward_head(tokens, pre_logits=True)

    @property
    def prefix_tokens(self) -> int:
        return int(getattr(self.trunk, "num_prefix_tokens", 0))


def _resolve(arch: str, *, pretrained: bool) -> tuple[str, dict[str, Any]]:
    """The timm name behind ``arch`` and the constructor arguments that make the difference."""
    if arch in VARIANTS:
        if pretrained:
            raise ConfigError(
                f"visual.arch {arch!r} is {VARIANTS[arch].base} with {dict(VARIANTS[arch].timm_args)}, for "
                f"which timm has no weights: set visual.pretrained=false or choose another arch."
            )
        return VARIANTS[arch].base, dict(VARIANTS[arch].timm_args)
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, list_image_archs(), n=3, cutoff=0.3)
        raise ConfigError(
            f"visual.arch is {arch!r}, which is not a timm image model; the closest names are "
            f"{', '.join(near) or '(none)'}; timm.list_models() lists all."
        )
    name, _, tag = arch.partition(".")
    known = timm.list_pretrained(f"{name}.*")
    if tag and arch not in known:
        raise ConfigError(
            f"visual.arch is {arch!r}, but timm has no weights tagged {tag!r} for {name}; it has "
            f"{', '.join(known) or 'none'}."
        )
    if pretrained and not timm.models.is_model_pretrained(arch):
        raise ConfigError(f"visual.arch {arch!r} has no weights in timm: set visual.pretrained=false.")
    return arch, {}


def _checked(timm_args: Mapping[str, Any]) -> Mapping[str, Any]:
    """``timm_args``; refuses names of files to load and arguments that this encoder sets itself."""
    if not isinstance(timm_args, Mapping):
        raise ValueError(f"timm_args: got {timm_args!r}; expected a mapping of constructor arguments.")
    if timm_args.get("global_pool", "token") == "":
        raise ValueError(
            "timm_args: got global_pool='', with which timm does not pool; expected a pooling, such as token or avg, "
            "which gives one vector for each image."
        )
    taken = sorted(_TAKEN.intersection(timm_args))
    if taken:
        raise ConfigError(
            f"visual.timm_args has {', '.join(taken)}, but may only hold arguments that shape the network: "
            f"use the encoder's own pretrained, image_size and drop_path_rate."
        )
    for name, value in timm_args.items():
        if name in ("depth", "embed_dim", "num_heads"):
            most = _MOST_BLOCKS if name == "depth" else MOST_FEATURES
            whole_number(f"timm_args.{name}", value, least=1, most=most)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number(f"timm_args.{name}", value, least=0)
    return timm_args


def _build(arch: str, base: str, *, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    """The timm model without its classifier."""
    try:
        return timm.create_model(base, pretrained=pretrained and _FETCH.get(), num_classes=0, **args)
    except TypeError as error:  # an argument that this architecture does not take
        raise ConfigError(f"visual.arch {arch!r} does not take {args}: {error}.") from error
    # timm and torch raise these, often without a message, for sizes and names that do not fit together.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"timm_args: timm cannot build {arch} with {args} ({type(error).__name__}{reason and ': '}{reason}); "
            "expected arguments of its constructor that fit together."
        ) from error
    except OSError as error:  # no network, no such file in the hub
        raise UserError(
            f"The pretrained weights of visual.arch {arch!r} could not be fetched ({error}); go online once "
            f"or set visual.pretrained=false."
        ) from error


def _check_grid(trunk: nn.Module, image_size: int) -> None:
    """Refuse an image that a vision transformer cannot cut into patches, which timm notices at the first batch."""
    patches = getattr(trunk, "patch_embed", None)
    size = getattr(patches, "patch_size", None)
    if not isinstance(size, tuple):
        return
    exact = getattr(trunk, "dynamic_img_size", False) and not getattr(patches, "dynamic_img_pad", False)
    if image_size < max(size) or (exact and any(image_size % side for side in size)):
        expected = "a multiple of" if exact else "at least"
        raise ValueError(f"image_size: got {image_size}; expected {expected} the patch size {max(size)}.")


def _fix_positions(arch: str, trunk: nn.Module) -> None:
    """Replace the learned positions of a trunk by frozen sine-cosine ones, in place."""
    learned = getattr(trunk, "pos_embed", None)
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if not isinstance(learned, nn.Parameter) or learned.ndim != 3 or grid is None:
        raise ConfigError(
            f'visual.position is "sincos", but visual.arch {arch!r} has no table of absolute positions: '
            f'set visual.position to "learned" (the architecture\'s own) or None.'
        )
    prefix = learned.shape[1] - grid[0] * grid[1]
    table = sincos_2d(learned.shape[2], grid, prefix_tokens=prefix)
    trunk.pos_embed = nn.Parameter(table, requires_grad=False)


def _set_norm_eps(trunk: nn.Module, eps: float) -> None:
    """Give every LayerNorm of a trunk the same epsilon, in place."""
    for module in trunk.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
