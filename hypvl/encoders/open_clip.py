"""Single encoders of open_clip, as they are: its image encoder, or its text encoder, of any model it can build."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import timm
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.tokenizer import Tokenizer
from hypvl.data.tokenizer_huggingface import without_remote_code
from hypvl.data.tokenizer_open_clip import OpenClipTokenizer
from hypvl.data.transforms import Interpolation
from hypvl.encoders.image import fetches_pretrained_weights
from hypvl.encoders.image_base import ImageEncoder
from hypvl.encoders.open_clip_configs import (
    Config,
    architecture,
    has_own_vocabulary,
    preprocessing,
    text_padding,
    weights_file,
)
from hypvl.encoders.text import check_tokens, pad_texts
from hypvl.encoders.text_huggingface import load_config
from hypvl.errors import CheckpointError, ConfigError, UserError

# In place of the half that is not wanted: the smallest one open_clip builds.
_NO_IMAGE = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8}
_NO_TEXT = {"layers": 1, "width": 8, "heads": 1, "context_length": 2, "vocab_size": 2}


@configurable("model")
class OpenClipImageEncoder(ImageEncoder):
    """The image encoder of an open_clip model, its projection included: (B, 3, S, S) -> (B, embed_dim).

    Names in the state dict are open_clip's, after ``tower.``.

    Args:
        model: A name of ``open_clip.list_models()``, or ``"local-dir:<folder>"`` as open_clip writes one.
        pretrained: A tag of open_clip's weights, or a file with a state dict of the whole model; None = random.
        pixel_mean: Mean per channel of pixels in [0, 1]; None = as open_clip has it for the weights.
        pixel_std: Standard deviation per channel; None as for ``pixel_mean``.
        interpolation: How images are resized for it, "bicubic" or "bilinear"; None as for ``pixel_mean``.
        grad_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Raises:
        ConfigError: for a name or a tag that open_clip does not know; the closest is named.
        CheckpointError: for weights of another model.
    """

    def __init__(
        self,
        model: str,
        *,
        pretrained: str | None = None,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        interpolation: Interpolation | None = None,
        grad_checkpointing: bool = False,
    ) -> None:
        one_of("interpolation", interpolation, Interpolation | None)
        config = architecture(model, pretrained)
        vision, seen = config["vision_cfg"], preprocessing(model, pretrained)
        tower = _build(model, {**config, "text_cfg": _NO_TEXT}).visual
        asked = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
        name = vision.get("timm_model_name")
        timm_config = timm.get_pretrained_cfg(name) if name else None
        super().__init__(
            _side(model, tower.image_size),
            pixel_mean=seen.mean if pixel_mean is None else pixel_mean,
            pixel_std=seen.std if pixel_std is None else pixel_std,
            fixed_size=timm_config is None or bool(timm_config.fixed_input_size),
        )
        self.asked_pixels = frozenset(name for name, values in asked.items() if values is not None)
        self.interpolation = one_of(
            "interpolation", seen.interpolation if interpolation is None else interpolation, Interpolation
        )
        self.resize_mode = "squash" if seen.resize_mode == "squash" else "shortest"
        self.model = model
        self.width = int(config["embed_dim"])
        self.tower = tower
        _load(tower, model, pretrained, part="visual")
        if grad_checkpointing:
            self.set_grad_checkpointing()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off."""
        self.tower.set_grad_checkpointing(enable)

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> features (B, embed_dim)."""
        features: Tensor = self.tower(pixels)
        return features


@configurable("model")
class OpenClipTextEncoder(nn.Module):
    """The text encoder of an open_clip model, its projection included: (B, L) -> (B, embed_dim).

    Texts are padded to the context length, as open_clip's tokenizers do. Names in the state dict are open_clip's, after
    ``tower.``.

    Args:
        model, pretrained, grad_checkpointing: As for :class:`OpenClipImageEncoder`. Text encoders of Hugging Face need
            its config, from the hub, its cache or a local folder.

    Raises:
        ConfigError, CheckpointError: as there.
        UserError: when the config of a Hugging Face encoder cannot be fetched.
    """

    def __init__(
        self, model: str, *, pretrained: str | None = None, grad_checkpointing: bool = False
    ) -> None:
        super().__init__()
        config = architecture(model, pretrained)
        text = config["text_cfg"]
        self.model = model
        self.tower = _build(model, {**config, "vision_cfg": _NO_IMAGE}).text
        self.width = int(config["embed_dim"])
        self.vocab_size = int(self.tower.vocab_size)
        self.context_length = int(text.get("context_length", 77))
        self.pad_token = text_padding(config)
        if text.get("hf_model_name"):
            self.pad_token = int(self.tower.config.pad_token_id)
        self.tokenizer = (
            OpenClipTokenizer(
                model,
                context_length=self.context_length,
                vocab_size=self.vocab_size,
                pad_token=self.pad_token,
            )
            if has_own_vocabulary(config)
            else Tokenizer(self.context_length)
        )
        self.vocabulary = self.tokenizer.vocabulary
        _load(self.tower, model, pretrained, part="text")
        if grad_checkpointing:
            self.set_grad_checkpointing()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off."""
        self.tower.set_grad_checkpointing(enable)

    def forward(self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Encode token ids (B, L), L at most ``context_length``, padded at the end: (B, embed_dim).

        ``lengths`` are ignored: the encoder computes all positions. Errors as of
        :meth:`hypvl.encoders.text.TextTransformer.forward`.
        """
        check_tokens(tokens, self.context_length)
        features: Tensor = self.tower(pad_texts(tokens, self.context_length, pad_token=self.pad_token))
        return features


def _build(model: str, config: Config) -> Any:
    """open_clip's model of a config, with random weights, whose encoders give one vector for each input."""
    from open_clip import CustomTextCLIP

    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    text = {**config["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    if text.get("hf_model_name"):
        _refuse_code_of(str(text["hf_model_name"]))
    try:
        with without_remote_code():
            return CustomTextCLIP(
                config["embed_dim"], vision, text, quick_gelu=bool(config.get("quick_gelu", False))
            )
    except OSError as error:  # Hugging Face has no such config in its cache, and no network
        raise UserError(
            f"{model}: the config of its text encoder {text.get('hf_model_name')} could not be read "
            f"({_reason(error)}); go online once, or give a folder with config.json."
        ) from error
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"{model}: open_clip cannot build it ({type(error).__name__}: {' '.join(str(error).split())}); check the "
            "config."
        ) from error


def _refuse_code_of(name: str) -> None:
    """ConfigError for a model of transformers whose config names code; one that is not there fails when it is built."""
    try:
        load_config(name)
    except ConfigError:
        raise
    except UserError:
        return


def _side(model: str, size: Any) -> int:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if height != width:
        raise ConfigError(f"{model}: takes images of {height} x {width}; expected a square.")
    return int(height)


def _load(tower: nn.Module, model: str, pretrained: str | None, *, part: str) -> None:
    """Load one half of a state dict of the whole model, unless weights follow from elsewhere."""
    if pretrained is None:
        return
    if not fetches_pretrained_weights():
        return
    from open_clip.factory import load_state_dict

    file = weights_file(model, pretrained)
    try:
        state: Mapping[str, Tensor] = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise CheckpointError(f"{file}: no state dict of open_clip ({_reason(error)}).") from error
    custom = any(key.startswith("text.") for key in state)
    prefix = "visual." if part == "visual" else "text." if custom else ""
    own = {
        key.removeprefix(prefix): tensor
        for key, tensor in state.items()
        if key.startswith(prefix) and (prefix or not key.startswith(("visual.", "logit_")))
    }
    wanted = tower.state_dict()
    own = {key: tensor for key, tensor in own.items() if key in wanted or not key.endswith(_NOT_WEIGHTS)}
    different = sorted(
        key
        for key in {*own, *wanted}
        if getattr(own.get(key), "shape", 0) != getattr(wanted.get(key), "shape", 1)
    )
    if different:
        raise CheckpointError(
            f"{file}: does not fit the {part} encoder of {model}: {', '.join(different[:6])}"
            f"{f' and {len(different) - 6} more' if len(different) > 6 else ''} differ; expected weights of that model."
        )
    if not all(bool(tensor.isfinite().all()) for tensor in own.values() if tensor.is_floating_point()):
        raise CheckpointError(f"{file}: holds NaN or infinity; take other weights.")
    tower.load_state_dict(own)


# Buffers and notes of older files that today's encoders do not store.
_NOT_WEIGHTS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size")


def _reason(error: Exception) -> str:
    """The first line of a message of a library, or the kind of an error without one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
