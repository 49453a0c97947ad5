"""Evaluations of a suite one by one: what goes wrong in one is recorded in its entry."""

from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from hypvl.cli.suites import measure_entry
from hypvl.config import LazyCall
from tests.config.parts import no_permission


def test_a_refusal_of_the_system_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({"evaluate": {"set": LazyCall(no_permission)()}})
    entry = measure_entry("set", config, cast(Any, None), cast(Any, None))
    assert (entry["status"], entry["reason"]) == ("failed", "data/a.json: Permission denied.")
    assert capsys.readouterr().err == ""
