"""The benchmark of the contrastive loss: both sides are the same loss, and its line has what it promises."""

import json
import sys

import pytest
import torch

from benchmarks.contrastive import SCORERS, Given, dense, embeddings, main, ours, products


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_formula_is_the_loss(scorer: str) -> None:
    model = Given(scorer).double()
    x, y = (embeddings(40, 16, scorer=scorer, seed=seed).double().requires_grad_() for seed in (0, 1))
    mine, theirs = ours(model, x, y), dense(model, x, y, scorer=scorer)
    # The published angle adds eps to its denominator.
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)
    for a, b in zip(*(torch.autograd.grad(value, (x, y)) for value in (mine, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


def test_products_are_counted_for_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    real = torch.mm

    def counted(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        shapes.append(len(a) * b.shape[1])
        return real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", counted)
    products(torch.ones(1500, 4), torch.ones(1500, 4), matrices=1)
    assert sum(shapes) == 2 * 1500**2  # the scores, forward and again backward


@pytest.mark.slow  # four processes that load torch
def test_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--batch", "64", "--dim", "8", "--repeats", "1", "--error-batch", "32", "--json"]
    monkeypatch.setattr(sys, "argv", ["contrastive", *arguments])
    main()
    line = json.loads(capsys.readouterr().out)
    for key in ("time_ratio", "matmul_ratio", "extra_memory_mib"):
        assert line[key] >= 0, key
    assert {"memory_ratio", "seconds"} <= set(line)
    assert 0 <= line["value_error"] < 1e-5 and 0 <= line["grad_error"] < 1e-4
    monkeypatch.setattr(sys, "argv", ["contrastive", "--growth", "32,64", "--dim", "8"])
    main()
    grown = json.loads(capsys.readouterr().out)["extra_memory_mib"]
    assert set(grown) == {"32", "64"}
