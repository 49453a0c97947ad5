"""Do model and data fit each other? What can be known of it before the first batch is read."""

from typing import Any

from torch import nn

from hypvl.errors import ConfigError
from hypvl.models.dual_encoder import DualEncoder


def check_data_fits(model: DualEncoder, dataset: Any) -> None:
    """Refuse data that would end the run at some later batch, or be read wrongly.

    A caption as long as the tokenizer allows must fit into the text encoder, every token id into its vocabulary, and
    images must have the size that the image encoder takes. What a data set or an encoder does not say is not checked.

    Args:
        model: What will be trained.
        dataset: With ``tokenizer`` (``context_length``, ``vocab_size``, ``eot_token``) and ``image_transform``
            (``size``), as hypvl's data sets have them.

    Raises:
        ConfigError: naming the two settings that do not fit.
    """
    tokenizer = getattr(dataset, "tokenizer", None)
    longest = getattr(tokenizer, "context_length", None)
    if isinstance(longest, int) and longest > model.context_length:
        raise ConfigError(
            f"dataset.tokenizer.context_length: got {longest}, but model.textual.context_length is "
            f"{model.context_length}, and the first longer caption would end the run; give both the same number."
        )
    ids, known = getattr(tokenizer, "vocab_size", None), _whole(model.textual, "vocab_size")
    if isinstance(ids, int) and known is not None and ids > known:
        raise ConfigError(
            f"model.textual.vocab_size: got {known}, but the tokenizer of the data has {ids} ids; give the encoder at "
            "least so many."
        )
    end, read_at = getattr(tokenizer, "eot_token", None), _whole(model.textual, "eot_token")
    if isinstance(end, int) and read_at is not None and end != read_at:
        raise ConfigError(
            f"model.textual.eot_token: got {read_at}, but texts of the tokenizer of the data end with {end}; give the "
            "encoder that number, or null where it is the last of its vocabulary."
        )
    size = getattr(getattr(dataset, "image_transform", None), "size", None)
    if isinstance(size, int) and size != model.image_size and getattr(model.visual, "fixed_size", False):
        raise ConfigError(
            f"dataset.image_transform.size: got {size}, but model.visual.image_size is {model.image_size}, and the "
            "image encoder takes no other; give both the same number."
        )


def _whole(module: nn.Module, name: str) -> int | None:
    value = getattr(module, name, None)
    return value if isinstance(value, int) else None
