"""Order of levels, and what is retrieved from the root outwards: values by hand."""

import math

import pytest
import torch

from hypvl.metrics.chains import along_radii, level_tau, order_hits
from hypvl.metrics.correlation import kendall_tau


@pytest.mark.parametrize(
    ("radii", "tau"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1.0),
        ([0.4, 0.3, 0.2, 0.1], -1.0),
        ([0.1, 0.3, 0.2, 0.4], 4 / 6),
        ([0.2, 0.2, 0.2, 0.2], 0.0),
        ([0.1, 0.1, 0.2, 0.3], 5 / 6),
    ],
)
def test_tau_by_hand(radii: list[float], tau: float) -> None:
    assert level_tau(radii) == pytest.approx(tau)
    assert level_tau([-r for r in radii]) == pytest.approx(-tau)
    if len(set(radii)) == len(radii):
        assert level_tau(radii) == pytest.approx(kendall_tau(range(len(radii)), radii))


def test_one_level_has_no_order() -> None:
    with pytest.raises(ValueError, match="radii: got 1; expected at least 2"):
        level_tau([0.5])


def test_candidates_enter_from_the_root_outwards() -> None:
    #                 a    b    c    d
    radii = torch.tensor([0.5, 0.0, 1.0, 0.25])
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 5.0, 5.0, 1.0], [1.0, 2.0, 3.0, 2.5]])
    # thresholds 0, 0.25, 0.5, 0.75, 1
    assert along_radii(scores, radii, steps=5) == [[1, 3, 0], [1], [1, 3, 2]]
    # thresholds 0 and 1: d is never the best of what is let in.
    assert along_radii(scores, radii, steps=2) == [[1, 0], [1], [1, 2]]


def test_of_equal_scores_the_one_nearer_the_root_wins() -> None:
    assert along_radii(torch.zeros(1, 3), torch.tensor([0.2, 0.1, 0.3]), steps=7) == [[1]]
    assert along_radii(torch.tensor([[1.0, 2.0]]), torch.tensor([0.4, 0.4]), steps=3) == [[1]]


def test_the_last_threshold_allows_every_candidate() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 30, generator=generator)
    radii = torch.rand(30, generator=generator)
    result = along_radii(scores, radii)
    assert [row[-1] for row in result] == scores.argmax(1).tolist()
    for row, own in zip(result, scores, strict=True):
        assert own[row].tolist() == sorted(own[row].tolist())
        assert radii[row].tolist() == sorted(radii[row].tolist())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(2,\) and 50"):
        along_radii(torch.zeros(2, 3), torch.zeros(2))
    assert math.isfinite(level_tau([math.inf, 0.0]))


def test_order_hits_count_a_tie_half() -> None:
    general, specific = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.0, 2.0])
    assert order_hits(general, specific) == [100.0, 50.0, 0.0]
