"""Each line of the rename table leads from an old name to one that exists today."""

import inspect
import json
import typing
from typing import Any

import pytest

from hypvl.config.plain import TARGET, locate
from hypvl.config.reader import RENAMES, stored_data
from hypvl.config.targets import allowed_targets

TABLE: dict[str, Any] = json.loads(RENAMES.read_bytes())
ARGUMENTS = [(target, old) for target, names in TABLE["arguments"].items() for old in names]
VALUES = [
    (target, argument, old)
    for target, arguments in TABLE["values"].items()
    for argument, values in arguments.items()
    for old in values
]


def test_the_table_has_the_parts_that_are_read() -> None:
    assert set(TABLE) == {"targets", "arguments", "values", "parameters"}


@pytest.mark.parametrize("old", TABLE["targets"])
def test_an_old_target_is_one_that_data_may_name_today(old: str) -> None:
    new = stored_data({TARGET: old}, source="old")[TARGET]  # type: ignore[index,call-overload]
    assert new != old and new in allowed_targets() and callable(locate(new))
    with pytest.raises(ImportError):  # else the old name is no old one
        locate(old)


@pytest.mark.parametrize(("target", "old"), ARGUMENTS)
def test_an_old_argument_is_one_that_its_target_takes(target: str, old: str) -> None:
    data: Any = stored_data({TARGET: target, old: 1}, source="old")
    (new,) = set(data) - {TARGET}
    parameters = inspect.signature(locate(data[TARGET])).parameters
    assert new in parameters and old not in parameters


@pytest.mark.parametrize(("target", "argument", "old"), VALUES)
def test_an_old_value_is_one_that_its_argument_takes(target: str, argument: str, old: str) -> None:
    data: Any = stored_data({TARGET: target, argument: old}, source="old")
    call = locate(data[TARGET])
    hints = typing.get_type_hints(call.__init__ if isinstance(call, type) else call)
    assert data[argument] in typing.get_args(hints[argument])
    assert old not in typing.get_args(hints[argument])


@pytest.mark.parametrize("old", TABLE["parameters"])
def test_patterns_of_parameters_are_read_by_the_names_of_today(old: str) -> None:
    assert stored_data([f"model.{old}.*"], source="old") == [f"model.{TABLE['parameters'][old]}.*"]
