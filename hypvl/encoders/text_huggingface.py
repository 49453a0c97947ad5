"""Text encoders of Hugging Face ``transformers``, by hub id, local folder or config; the extra ``huggingface``."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.data.tokenizer_huggingface import UNLOADABLE, HuggingFaceTokenizer, pad_id, require_transformers
from hypvl.encoders.image import fetches_pretrained_weights
from hypvl.encoders.image_base import real_device
from hypvl.encoders.text_base import TextEncoder, last_of, mean_of
from hypvl.errors import ConfigError, UserError

Pooler: TypeAlias = Literal["cls", "cls_before_pooler", "mean", "last", "prompt"]
#: PromptBERT's template as ITRA has it.
TEMPLATE = 'The sentence of "{}" means [MASK].'
# What a config may not say: names of code, and of files with weights.
_REFUSED = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "quantization_config",
    "trust_remote_code",
)
_LARGEST = 2**31 - 1


@configurable("model")
class HuggingFaceTextEncoder(TextEncoder):
    """A text model of ``transformers``: BERT, RoBERTa, GPT-2, T5's encoder, the text half of Chinese-CLIP and others.

    The module is ``self.trunk``. Code in a repository or folder is never run. Poolers, of the last layer's states:

    - ``"cls"``: what the model itself pools (``pooler_output``) where it does and ``use_pooler`` is true, else the
      state of the first token; ``"cls_before_pooler"``: the state of the first token.
    - ``"mean"``: mean over the tokens of the text. ``"last"``: the last token, for models that read from left to right.
    - ``"prompt"``: the mask token in ``template`` around the text, minus what the template alone gives there with its
      tokens at the same positions. Differs: template and text are tokenised apart.

    Args:
        name: Hub id or local folder, as ``save_pretrained`` writes it; None = ``config``.
        config: A model's config with its ``model_type``, for random weights, in place of ``name``.
        pretrained: Load the weights of ``name``; False = only its config, with random weights.
        tokenizer: Hub id or local folder of the tokenizer; None = ``name``. With a ``config`` and no tokenizer, the
            data must name one.
        pooler: See above.
        use_pooler: For ``"cls"``: whether to use the model's own pooler; without it, it is not built.
        template: For ``"prompt"``: ``{}`` stands for the text, ``[MASK]`` for the model's mask token.
        projection: Apply the text projection of a model of two towers (CLIP, Chinese-CLIP) after pooling.
        context_length: Longest text in tokens, special tokens and template included.
        grad_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Raises:
        ConfigError: When the model lacks an asked-for option, or the context is longer than its positions.
        UserError: When the weights are not there, or ``transformers`` is not installed.
        DataError: When the tokenizer is not there.

    Source: BERT (Devlin et al. 2019); Sentence-BERT (Reimers & Gurevych 2019), section 3, for the mean; PromptBERT
        (Jiang et al. 2022), section 4, for the prompt.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        tokenizer: str | None = None,
        pooler: Pooler = "cls",
        use_pooler: bool = True,
        template: str = TEMPLATE,
        projection: bool = False,
        context_length: int = 77,
        grad_checkpointing: bool = False,
    ) -> None:
        one_of("pooler", pooler, Pooler)
        if (name is None) == (config is None):
            raise ConfigError(
                f"textual.name is {name!r} and textual.config is {config!r:.60}; give one of them, the other null."
            )
        with real_device():
            model = _build(name, config, pretrained=pretrained)
        trunk = _text_half(model)
        settings = trunk.config
        tokens = None
        if (source := tokenizer if tokenizer is not None else name) is not None:
            tokens = HuggingFaceTokenizer(
                source, context_length, template=template if pooler == "prompt" else None
            )
        elif pooler == "prompt":
            raise ConfigError(
                "textual.tokenizer is null, but the pooler prompt needs the ids of its template; name one."
            )
        fill = getattr(settings, "pad_token_id", None)
        super().__init__(
            context_length=context_length,
            vocab_size=trunk.get_input_embeddings().num_embeddings,
            pad_token=_pad_of(settings) if tokens is None else tokens.pad_token,
            vocabulary=None if tokens is None else tokens.vocabulary,
            fill_id=0 if fill is None or fill < 0 else int(fill),
        )
        self.trunk = trunk
        self.pooler = pooler
        self.use_pooler = bool(use_pooler)
        self._tokenizer = tokens
        self._check(name or str(settings.model_type))
        if pooler != "cls" or not use_pooler:
            _drop_pooler(trunk)
        self.text_projection: nn.Module | None = None
        if projection:
            self.text_projection = getattr(model, "text_projection", None)
            if self.text_projection is None:
                raise ConfigError(
                    f"textual.projection is true, but {name or settings.model_type} has no text projection; set it to "
                    "false."
                )
        with real_device():
            self.width = self._probe_width()
        settings.use_cache = False
        if grad_checkpointing:
            self.set_grad_checkpointing()

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        """The tokenizer whose ids this encoder takes; an encoder that was built from a config alone has none."""
        if self._tokenizer is None:
            raise AttributeError("tokenizer")  # nn.Module then says that there is none
        return self._tokenizer

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn recomputation in the backward pass on or off; ConfigError where the model does not support it."""
        if not self.trunk.supports_gradient_checkpointing:
            raise ConfigError(
                f"textual: {type(self.trunk).__name__} has no gradient checkpointing in transformers: turn it off."
            )
        if enable:
            self.trunk.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.trunk.gradient_checkpointing_disable()

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask (B, L) -> pooled features (B, width)."""
        pooled = self._pool(ids, mask)
        return pooled if self.text_projection is None else self.text_projection(pooled)

    def _pool(self, ids: Tensor, mask: Tensor) -> Tensor:
        out = self.trunk(input_ids=ids, attention_mask=mask.long())
        states: Tensor = out.last_hidden_state  # (B, L, W)
        if self.pooler == "mean":
            return mean_of(states, mask)
        if self.pooler == "last":
            return last_of(states, mask)
        if self.pooler == "prompt":
            return self._prompted(states, mask)
        own: Tensor | None = getattr(out, "pooler_output", None)
        if self.pooler == "cls" and self.use_pooler and own is not None:
            return own
        return states[:, 0]

    def _prompted(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (B, L, W) of texts in their template -> mask token minus that of the template alone (B, W)."""
        before, after = self.tokenizer.before, self.tokenizer.after
        template = [*before, *after]
        most = states.shape[1] - len(template)  # tokens of the longest text
        if most < 0:
            raise ValueError(
                f"tokens are {states.shape[1]} long, but the template alone has {len(template)}: texts go through the "
                "model's tokenizer."
            )
        place = template.index(self.tokenizer.tokenizer.mask_token_id)
        moves = place >= len(before)  # with the length of the text
        count = (mask.sum(dim=1) - len(template)).clamp(0, most)  # (B,) tokens of each text
        token = states[torch.arange(states.shape[0], device=states.device), place + count * moves]  # (B, W)
        # The template alone, its end moved by 0 to `most` places: one row for each length that a text may have.
        moved = torch.arange(most + 1, device=states.device)[:, None]  # (M, 1)
        after_text = (torch.arange(len(template), device=states.device) >= len(before)).long()  # (T,)
        positions = torch.arange(len(template), device=states.device) + moved * after_text  # (M, T)
        ids = torch.tensor(template, device=states.device).expand(most + 1, -1)
        alone = self.trunk(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions + _first_position(self.trunk),
        ).last_hidden_state  # (M, T, W)
        return token - alone[count, place]

    def _check(self, name: str) -> None:
        """Refuse a pooler or a context length that the model cannot have."""
        trunk, settings = self.trunk, self.trunk.config
        if self.pooler in ("cls", "cls_before_pooler") and _reads_left_to_right(settings):
            raise ConfigError(
                f"textual.pooler is {self.pooler!r}, but in {name} the first token sees no other one; set it to last "
                "or mean."
            )
        if self.pooler == "prompt":
            takes = "position_ids" in inspect.signature(trunk.forward).parameters
            if not takes or _positions(trunk) is None:
                raise ConfigError(
                    f"textual.pooler is 'prompt', but {name} has no table of positions that can be moved; choose a "
                    "model like BERT or RoBERTa, or another pooler."
                )
            if self.tokenizer.tokenizer.mask_token_id not in [*self.tokenizer.before, *self.tokenizer.after]:
                raise ConfigError(f"textual.template is {self.tokenizer.template!r}; expected [MASK] in it.")
        limit = getattr(settings, "max_position_embeddings", None)
        if isinstance(limit, int) and limit > 0:
            limit -= _first_position(trunk)
            if self.context_length > limit:
                raise ConfigError(
                    f"textual.context_length is {self.context_length}, but {name} has positions for {limit} tokens; "
                    "lower it."
                )
        if self._tokenizer is not None and self._tokenizer.vocab_size > self.vocab_size:
            raise ConfigError(
                f"textual.tokenizer {self._tokenizer.name} has {self._tokenizer.vocab_size} ids, but {name} knows "
                f"{self.vocab_size}; name the tokenizer of this model."
            )

    @torch.no_grad()
    def _probe_width(self) -> int:
        """Width of the features, by one short text."""
        length = 1 if self.pooler != "prompt" else len(self.tokenizer.before) + len(self.tokenizer.after) + 1
        was_training = self.training
        device = self.trunk.get_input_embeddings().weight.device
        ids = torch.full((1, length), self.fill_id, device=device)
        features = self.eval().encode(ids, torch.ones_like(ids, dtype=torch.bool))
        self.train(was_training)
        return features.shape[1]


def _build(name: str | None, config: Mapping[str, Any] | None, *, pretrained: bool) -> Any:
    """The whole model of a name or a config."""
    transformers = require_transformers()
    if name is None:
        settings = _config_of(cast(Mapping[str, Any], config))
        _refuse_code(settings, "textual.config")
    else:
        settings = load_config(name)
    if name is not None and pretrained and fetches_pretrained_weights():
        with _as_user_error(f"the weights of {name}"):
            return transformers.AutoModel.from_pretrained(
                name, config=settings, trust_remote_code=False, dtype=torch.float32
            )
    try:
        return transformers.AutoModel.from_config(
            settings, trust_remote_code=False, dtype=torch.float32
        ).train()
    except (ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(
            f"config: transformers cannot build {name or settings.model_type} ({' '.join(str(error).split())[:200]}); "
            "expected settings of a text model that fit together."
        ) from error


def load_config(name: str) -> Any:
    """The config of a hub id or a local folder, as ``transformers`` gives it; code in it is never run.

    Raises:
        UserError: when there is none, or transformers is not installed.
        ConfigError: when it names code of a repository.
    """
    transformers = require_transformers()
    with _as_user_error(f"the config of {name}"):
        settings = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    _refuse_code(settings, name)
    return settings


def _config_of(given: Mapping[str, Any]) -> Any:
    transformers = require_transformers()
    plain = _plain(given)
    kind = plain.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError("textual.config: has no model_type; expected one, such as bert.")
    try:
        return transformers.AutoConfig.for_model(kind, **plain)
    # KeyError and ValueError: an unknown kind; the others: settings that do not fit together.
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ConfigError(
            f"textual.config: transformers has no {kind!r} with these settings ({' '.join(str(error).split())[:200]})."
        ) from error


def _plain(given: Mapping[str, Any], path: str = "config") -> dict[str, Any]:
    """A config as plain data; refuses what names code, and numbers beyond all sense."""
    result: dict[str, Any] = {}
    for key, value in given.items():
        if key in _REFUSED:
            raise ConfigError(
                f"textual.{path}.{key}: is not taken from a config, as it may name code; leave it out."
            )
        if isinstance(value, Mapping):
            value = _plain(value, f"{path}.{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number(f"{path}.{key}", value, most=_LARGEST)
        elif not isinstance(value, str | bool | None):
            value = list(value)
        result[str(key)] = value
    return result


def _refuse_code(settings: Any, source: str) -> None:
    """Attention (or experts) of the name of a repository would be downloaded and run, in parts of a model, too."""
    for name, value in (settings if isinstance(settings, dict) else vars(settings)).items():
        if isinstance(value, dict) or hasattr(value, "model_type"):  # the config of a part
            _refuse_code(value, source)
        elif "_implementation" in str(name) and "/" in repr(value):
            raise ConfigError(
                f"{source}: names the code {value!r} as {str(name).strip('_')}; expected one that transformers has."
            )


@contextlib.contextmanager
def _as_user_error(what: str) -> Iterator[None]:
    try:
        yield
    except UNLOADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what} cannot be loaded ({reason}); expected a folder of save_pretrained, or a hub id in the cache (go "
            "online once)."
        ) from error


def _text_half(model: Any) -> Any:
    """The part that encodes texts: of two towers the text tower, of encoder and decoder the encoder."""
    if getattr(model.config, "text_config", None) is not None and hasattr(model, "text_model"):
        return model.text_model
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def _drop_pooler(trunk: Any) -> None:
    """Without the module, no parameter is left without a gradient."""
    if isinstance(getattr(trunk, "pooler", None), nn.Module):
        trunk.pooler = None


def _reads_left_to_right(settings: Any) -> bool:
    """Whether this is a decoder, which is only trained to predict the next token."""
    transformers = require_transformers()
    kind = type(settings)
    return (
        kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        and kind not in transformers.MODEL_FOR_MASKED_LM_MAPPING
    )


def _positions(trunk: Any) -> nn.Embedding | None:
    """The table of absolute positions of a model like BERT; None where it has none."""
    table = getattr(getattr(trunk, "embeddings", None), "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None


def _first_position(trunk: Any) -> int:
    """Row of the first token in the table of positions: RoBERTa's begins after that of padding."""
    table = _positions(trunk)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def _pad_of(settings: Any) -> int:
    """The padding id that a config alone says, -1 for none."""
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")
    return pad_id(type("Ids", (), {name: getattr(settings, name, None) for name in names}))
