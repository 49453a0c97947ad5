"""Dropout of the text transformer: where it acts, which random numbers it draws, and that there is none by default."""

import pytest
import torch
from torch import Tensor, nn

from hypvl.encoders.text import TextTransformer
from tests.encoders.test_text import TOKENS, tiny


def encode(model: TextTransformer, *, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return model(TOKENS)


def test_none_by_default_and_no_random_number_is_drawn() -> None:
    model = tiny().train()
    state = torch.get_rng_state()
    first = model(TOKENS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, tiny(dropout=0.5).eval()(TOKENS))


def test_views_of_one_text_differ_by_the_random_numbers_only() -> None:
    model = tiny(dropout=0.3).train()
    first, again, other = (encode(model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert ((first - other).abs().amax(dim=1) > 1e-3).all()  # each text


def test_acts_on_embedded_tokens_and_both_residual_branches() -> None:
    model, seen = tiny(dropout=0.25).train(), []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    encode(model, seed=0)
    assert len(seen) == 1 + 2 * 2  # the tokens, and two branches of each of two blocks
    for before, after in seen:
        zeroed = after == 0
        assert zeroed.double().mean().item() == pytest.approx(0.25, abs=0.12)
        torch.testing.assert_close(after[~zeroed], before[~zeroed] / 0.75)


def test_grad_checkpointing_draws_the_same_numbers_again() -> None:
    gradients = []
    for recompute in (False, True):
        model = tiny(dropout=0.3, grad_checkpointing=recompute).train()
        encode(model, seed=3).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for direct, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, direct, rtol=0, atol=1e-12)
