"""Forces loss terms into tiles smaller than the batch, wherever they would choose for themselves."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest

from hypvl.losses import info_nce
from hypvl.ops import row_means
from hypvl.ops.tiled_logsumexp import autograd


@contextlib.contextmanager
def forced(implementation: str) -> Iterator[None]:
    """Nothing for "chosen"; for "tiled" tiles from the first score on, of 3 rows and 2 or all columns, ragged ends."""
    if implementation == "chosen":
        yield
        return
    with (
        mock.patch.object(info_nce, "TILED_FROM", 0),
        mock.patch.object(autograd, "TILE", (3, 2)),
        mock.patch.object(row_means, "block_rows", lambda columns, device: 3),
    ):
        yield


@pytest.fixture(params=["chosen", "tiled"])
def either_implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with both implementations."""
    with forced(request.param):
        yield request.param
