"""The models and data that the tests of all harnesses share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.integrations.miniature import Miniature, write_checkpoint

OfRecipe = Callable[[str], Path]


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return Miniature.write(tmp_path_factory.mktemp("miniature"))


@pytest.fixture(scope="session")
def fitted(miniature: Miniature, tmp_path_factory: pytest.TempPathFactory) -> OfRecipe:
    """The checkpoint of a recipe, fitted to the miniature."""

    @cache
    def of_recipe(name: str) -> Path:
        path = tmp_path_factory.mktemp(name) / "checkpoint_final.pth"
        return write_checkpoint(path, name, fit=miniature)

    return of_recipe


@pytest.fixture(scope="session")
def meru(fitted: OfRecipe) -> Path:
    return fitted("meru_vit_s")
