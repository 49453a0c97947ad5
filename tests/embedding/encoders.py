"""One call to encode images or texts, for tests."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hypvl.data.transforms import Squeeze
from hypvl.embedding.encode import CachedEncoder, EncodedImages, Encoding
from tests.evaluation.fakes import FakeTokenizer

PLAIN = Encoding(batch_size=2, num_workers=0)


def encode_images(
    model: Any,
    images: Any,
    *,
    encoding: Encoding = PLAIN,
    store: Any = None,
    transform: Any = None,
    **more: Any,
) -> EncodedImages:
    encoder = CachedEncoder(model, encoding=encoding, store=store)
    return encoder.encode_images(images, transform=transform or Squeeze(8), **more)


def encode_texts(
    model: Any, texts: Sequence[str], *, encoding: Encoding = PLAIN, store: Any = None, tokenizer: Any = None
) -> Tensor:
    tokenizer = FakeTokenizer() if tokenizer is None else tokenizer
    return CachedEncoder(model, encoding=encoding, tokenizer=tokenizer, store=store).encode_texts(texts)
