"""Types and ranges of settings and arguments: hostile values give an error of one sentence."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, get_origin, get_type_hints

import pytest

from eqxcnn.errors import InputError
from eqxcnn.ranges import Items, Range, check_arguments, coerce, declared_bounds, describe_type, plain_type
from eqxcnn.recipe import Recipe
from eqxcnn.recipe.command_line import parse_flags
from eqxcnn.recipe.files import recipe_from, to_yaml

Floats = Annotated[tuple[Annotated[float, Range(0, 9, excludes_low=True)], ...], Items(3)]
Size = tuple[Annotated[int, Range(1, 64)], Annotated[int, Range(1, 64)]] | None


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = [
    True, 10**400, 10**5000, float("nan"), float("inf"), -1, -1.0, 0, 1e18, 10**12, None, {"a": 1}, b"x", 1j,
    "", "\x1b[31m", "nan", "\0", "\ud800", "x" * 300, "x" * 100_000, "1+" * 10_000, nested(3000),
    [], [1], ["\x1b"], [float("nan")], [10**400], [True, True], [28, 2.5], ["flip_horizontal", 5], ["1is 1"],
    ["*" * 1000 + "=1"], ["a=1e999"], ["x=" + "1" * 100_000 + "!"], ["flip_horizontal"] * 10_000, ["a=1"] * 10_000,
]  # fmt: skip
FLAGS = ["nan", "inf", "-1", "1" * 400, "1" * 5000, "", "\x1b[31m", "1e18", "\0", "\udce9", "1+" * 10_000]
SETTINGS = [field.name for field in dataclasses.fields(Recipe)]


def refusal(make):
    """Returns the message of the `InputError` that a call raises; `None` for a refused flag or no exception."""
    try:
        make()
    except InputError as error:
        return str(error)
    except SystemExit as error:
        return None if error.code == 2 else f"exit {error.code}"
    return None


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_values_of_a_setting_are_refused_by_its_name(name):
    messages = [refusal(lambda: to_yaml(recipe_from({name: value}, "r.yaml")).encode()) for value in HOSTILE]  # noqa: B023
    refused = [message for message in messages if message is not None]
    assert len(refused) > len(HOSTILE) // 2
    assert all(name in message and message.isprintable() and len(message) <= 1000 for message in refused)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_flags_are_refused_by_their_name(name):
    flag = f"--{name.replace('_', '-')}"
    messages = [refusal(lambda: parse_flags([flag, value]).to_recipe()) for value in FLAGS]  # noqa: B023
    assert all(name in message for message in messages if message is not None)


def test_every_number_of_a_recipe_has_bounds():
    for name, hint in get_type_hints(Recipe, include_extras=True).items():
        if "number" in describe_type(hint):
            ranges = [bound for bound in declared_bounds(hint) if isinstance(bound, Range)]
            assert ranges, name
            assert all(bound.high < 2**32 for bound in ranges), name
        if get_origin(plain_type(hint)) is tuple and Ellipsis in plain_type(hint).__args__:
            assert any(isinstance(bound, Items) for bound in declared_bounds(hint)), name


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        ([1, 2], Floats, (1.0, 2.0)),
        ((28, 30), Size, (28, 30)),
        (None, Size, None),
        (3, Annotated[int | float, Range(0, 9)], 3),
        (3.5, Annotated[int | float, Range(0, 9)], 3.5),
        (0, Annotated[float, Range(0, 1)] | Literal["test"], 0.0),
        ("test", Annotated[float, Range(0, 1)] | Literal["test"], "test"),
        ("balanced", Floats | Literal["balanced"], "balanced"),
    ],
)
def test_values_are_converted(value, hint, expected):
    converted = coerce("x", value, hint)
    assert converted == expected
    assert type(converted) is type(expected)
    if isinstance(expected, tuple):
        assert list(map(type, converted)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ((28, 2.5), Size, "`x` .=.28, 2.5.. must be a list of 2, each a whole number or nothing"),
        ((28, True), Size, "must be a list of 2, each a whole number"),
        ((28, 65), Size, r"must be from 1 to 64 in every item .item 2 is 65."),
        ((1, float("nan"), 2), Floats, r"must be above 0 and at most 9 in every item .item 2 is nan."),
        ((1, 2, 3, 4), Floats, r"must be a list of at most 3 items .it has 4."),
        (("a", 5), tuple[str, ...], "must be a list, each a string"),
        (10**400, Annotated[int, Range(0, 1)], "`x` .=a number of more than 30 digits. must be from 0 to 1"),
        (-(10**400), Annotated[float, Range(0, 1)], "must be from 0 to 1"),
        (True, float, "`x` .=True. must be a number"),
        (1, bool, "`x` .=1. must be true or false"),
        ("a\0b", str, "must be a string without NUL characters"),
        (Path("a\0b"), Path | None, "must be a string without NUL characters"),
        ("\udce9", str, "must be valid UTF-8 text"),
        ("x" * 4097, str, "must be a string of at most 4096 characters"),
        (["balanced"], Literal["balanced"], "must be one of 'balanced'"),
    ],
)
def test_other_values_are_refused_in_one_sentence(value, hint, message):
    with pytest.raises(InputError, match=message):
        coerce("x", value, hint)


def test_decorated_functions_check_and_convert_their_arguments():
    @check_arguments
    def double(number: Annotated[float, Range(0, 9)], times: Annotated[int, Range(1, 2)] = 2) -> float:
        assert isinstance(number, float)
        return number * times

    assert double(4) == 8.0
    with pytest.raises(InputError, match=r"`number` .=10. of `double` must be from 0 to 9"):
        double(10)
    with pytest.raises(InputError, match=r"`times` .=3. of `double` must be from 1 to 2"):
        double(1, times=3)
