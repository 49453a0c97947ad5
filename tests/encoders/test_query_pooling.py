"""Pooling of patch tokens by texts (numbers: tests/parity/test_hyper3.py)."""

import pytest
import torch

from hypvl.encoders.query_pooling import QueryPooling


def inputs(images: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(images, 5, 8, generator=generator, dtype=torch.float64)
    return tokens, torch.randn(queries, 6, generator=generator, dtype=torch.float64)


def pooling(**options: object) -> QueryPooling:
    torch.manual_seed(0)
    return QueryPooling(8, 6, **{"heads": 2, **options}).double()  # type: ignore[arg-type]


def test_each_query_sees_its_own_image_alone() -> None:
    module, (tokens, queries) = pooling(), inputs(4, 5)
    owner = torch.tensor([3, 0, 3, 1, 0])  # any order; one image has no query
    alone = [
        module(tokens[[o]], queries[[q]], torch.zeros(1, dtype=torch.int64))
        for q, o in enumerate(owner.tolist())
    ]
    torch.testing.assert_close(module(tokens, queries, owner), torch.cat(alone), rtol=0, atol=1e-12)


def test_the_mean_has_no_parameters_and_reads_no_query() -> None:
    module, (tokens, queries) = pooling(mode="mean"), inputs(2, 3)
    owner = torch.tensor([1, 0, 1])
    assert not list(module.parameters())
    torch.testing.assert_close(module(tokens, queries * torch.nan, owner), tokens.mean(1)[owner])


def test_without_queries_every_gradient_is_zero() -> None:
    module, (tokens, queries) = pooling(), inputs(2, 0)
    module(tokens, queries, torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


def test_autocast_changes_nothing() -> None:
    module, (tokens, queries) = pooling().float(), inputs(2, 3)
    arguments = (tokens.float(), queries.float(), torch.tensor([0, 0, 1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = module(*arguments)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, module(*arguments))


def test_sizes_are_checked() -> None:
    with pytest.raises(
        ValueError, match="heads: got 3; expected a divisor of the width 8 of the image encoder"
    ):
        QueryPooling(8, 6, heads=3)
    with pytest.raises(ValueError, match="mode: got 'max'; expected 'conditioned' or 'mean'"):
        QueryPooling(8, 6, mode="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mlp_ratio: got 0"):
        QueryPooling(8, 6, mlp_ratio=0)
