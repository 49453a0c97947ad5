"""What an absent package says."""

import pytest

from hypvl.errors import UserError
from hypvl.negatives.backends.base import package_versions


def test_versions_of_what_is_there() -> None:
    assert list(package_versions(("numpy", "pillow"), backend="x", extra="y")) == ["numpy", "pillow"]


def test_missing_packages_are_named_with_their_extra() -> None:
    with pytest.raises(UserError) as error:
        package_versions(("numpy", "no-such-a", "no-such-b"), backend="masked-lm", extra="negatives-lm")
    assert str(error.value) == (
        "--backend masked-lm needs no-such-a and no-such-b, which are not installed; pip install "
        "'hypvl[negatives-lm]', or use --backend builtin."
    )
