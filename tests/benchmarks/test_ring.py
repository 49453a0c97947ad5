import pytest

from benchmarks import ring


@pytest.mark.slow  # processes that load torch
def test_figures_of_a_tiny_run() -> None:
    result = ring.measure(ring.parser().parse_args(["--ranks", "2", "--batch", "32", "--dim", "8"]))
    assert result["block_mib"] == 32 * 8 * 4 / 2**20
    assert result["grad_difference"] < 1e-5 and result["time_ratio"] > 0


def test_ranks_have_rows_of_their_own() -> None:
    first, second = (list(ring.features(4, 3, rank=rank).values()) for rank in (0, 1))
    assert all(x.requires_grad and not x.equal(y) for x, y in zip(first, second, strict=True))
