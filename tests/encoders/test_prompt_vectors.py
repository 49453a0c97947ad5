"""Learned vectors in a text (CoOp) act like the words they stand for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.encoders.prompt_vectors import PromptVectors
from hypvl.encoders.text import TextTransformer

EOT = 59
TEXTS = ([58, 5, 6, EOT], [58, EOT], [58, 7, 8, 9, 3, 4, EOT])
WORDS = [11, 12, 13]


def rows(*, words: list[int]) -> Tensor:
    """The texts with words after the start token, padded to the longest."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([text[0], *words, *text[1:]]) for text in TEXTS], batch_first=True
    )


def models(**options: Any) -> tuple[TextTransformer, TextTransformer]:
    """One without and one with three vectors, which are the embeddings of three words."""
    torch.manual_seed(0)
    plain = TextTransformer("L2_W16_A2", vocab_size=60, context_length=12, **options).double()
    with torch.no_grad():
        for p in plain.parameters():
            p.add_(0.2 * torch.randn_like(p))
    prompted = TextTransformer(
        "L2_W16_A2", vocab_size=60, context_length=12, prompt_vectors=3, **options
    ).double()
    report = prompted.load_state_dict(plain.state_dict(), strict=False)
    assert report.missing_keys == ["prompt.vectors"] and not report.unexpected_keys
    assert prompted.prompt is not None
    with torch.no_grad():
        prompted.prompt.vectors.copy_(plain.token_embed.weight[WORDS])
    return plain, prompted


@pytest.mark.parametrize(
    "options",
    [{}, {"causal": False, "read_out": "last"}, {"read_out": "largest_id"}, {"fixed_positions": 2}],
    ids=str,
)
def test_vectors_of_words_are_those_words(options: dict[str, Any]) -> None:
    plain, prompted = models(**options)
    wanted = plain(rows(words=WORDS))
    assert (wanted - plain(rows(words=[]))).abs().max() > 0.1
    torch.testing.assert_close(prompted(rows(words=[])), wanted, rtol=0, atol=1e-12)
    lengths = [len(text) for text in TEXTS]  # of the texts as they come in
    torch.testing.assert_close(prompted(rows(words=[]), lengths), wanted, rtol=0, atol=1e-12)


def test_only_the_vectors_learn_where_the_rest_is_frozen() -> None:
    _, prompted = models()
    prompted.requires_grad_(False)
    assert prompted.prompt is not None
    prompted.prompt.requires_grad_(True)
    prompted(rows(words=[])).square().sum().backward()
    learned = {name for name, p in prompted.named_parameters() if p.grad is not None}
    assert learned == {"prompt.vectors"}
    assert prompted.prompt.vectors.grad is not None
    assert bool((prompted.prompt.vectors.grad.abs().sum(1) > 0).all())


def test_texts_are_shorter_by_the_vectors() -> None:
    _, prompted = models()
    assert prompted.context_length == prompted.tokenizer.context_length == 9  # type: ignore[attr-defined]  # a Tokenizer
    assert prompted.posit_embed.shape == (12, 16)
    with pytest.raises(ValueError, match="tokens are 10 long, but the context length is 9"):
        prompted(torch.full((1, 10), 5))


def test_start_and_ids() -> None:
    torch.manual_seed(0)
    vectors = PromptVectors(2000, 50)
    assert vectors.vectors.std().item() == pytest.approx(0.02, rel=0.02)
    assert vectors.vectors.mean().item() == pytest.approx(0, abs=3e-4)
    assert PromptVectors(2, 4).insert(torch.tensor([[58, 5, EOT]])).tolist() == [[58, -1, -2, 5, EOT]]
    with pytest.raises(ValueError, match="prompt_vectors: got 0; expected a whole number of at least 1"):
        PromptVectors(0, 4)
