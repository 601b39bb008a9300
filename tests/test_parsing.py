"""Tests of the strict readers of JSON, YAML and Python literals."""

import json
import os
import time

import pytest

from eqxcnn.errors import InputError, nearest, printable
from eqxcnn.parsing import parse_json, parse_literal, parse_yaml, read_text


def test_json_and_yaml_are_read():
    assert parse_json('{"a": [1, -2.5e3, null, true, "[{\\"x"]}', "`f`") == {"a": [1, -2500.0, None, True, '[{"x']}
    assert parse_json(b'"\xc3\xa9"', "`f`") == "é"
    text = "a: [1, .5, 1e-3, ~, yes]\nb: {c: text}\n2: x\nd: 2024-13-45\ne: 2024-01-02\n"
    assert parse_yaml(text, "`f`") == {
        "a": [1, 0.5, "1e-3", None, True],
        "b": {"c": "text"},
        2: "x",
        "d": "2024-13-45",
        "e": "2024-01-02",
    }
    assert parse_yaml("", "`f`") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 2}', "`a` appears twice"),
        ("[" * 1_000 + "]" * 1_000, "more than 50 levels"),
        ("[" * 100_000, "more than 50 levels"),
        ('{"a":' * 1_000, "more than 50 levels"),
        ("[NaN]", "nan is not finite"),
        ("[-Infinity]", "-inf is not finite"),
        ("1e400", "inf is not finite"),
        ("1" * 5_000, "a number has 5000 characters"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_json_that_is_refused(text, problem):
    with pytest.raises(InputError, match=problem) as raised:
        parse_json(text, "`config.json`")
    assert str(raised.value).startswith("`config.json` cannot be read as JSON: ")


def test_a_string_without_an_end_is_read_once():
    started = time.monotonic()
    with pytest.raises(InputError, match="Unterminated string"):
        parse_json('"' + '\\"' * 500_000, "`f`")
    assert time.monotonic() - started < 2


def test_nan_is_read_where_it_is_allowed():
    assert str(parse_json("[NaN, -Infinity]", "`f`", allow_nan=True)) == "[nan, -inf]"
    with pytest.raises(InputError, match="not finite"):
        parse_json("1e400", "`f`", allow_nan=True)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "line 1 has an alias or an anchor"),
        ("a: 1\nb: *a", "line 2 has an alias"),
        ("a: 1\nb: 2\na: 3", "`a` appears twice"),
        ("a: {b: 1, b: 2}", "`b` appears twice"),
        ("a: !!python/object/apply:os.system [x]", "line 1 has the tag"),
        ("a: !!float 1", "line 1 has the tag"),
        ("[" * 1_000 + "]" * 1_000, "more than 50 levels"),
        ("a: .nan", "nan is not finite"),
        ("a: -.inf", "-inf is not finite"),
        ("a: " + "9" * 5_000, "a number has 5000 characters"),
        ("a: 1.0e+400", "inf is not finite"),
        ("? [1]\n: 2", "a list or a mapping as a key"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \x1b[31m", "not valid YAML"),
        ("<<: {a: 1}", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, problem):
    with pytest.raises(InputError, match=problem) as raised:
        parse_yaml(text, "the recipe `r.yaml`")
    assert str(raised.value).startswith("the recipe `r.yaml` is not valid YAML: ")


@pytest.mark.parametrize("text", ["1", "-2.5", "'x'", "[1, (2, 3)]", "{'a': None}", " True "])
def test_literals_are_read(text):
    assert parse_literal(text, "`x`") == eval(text)


@pytest.mark.parametrize(
    "text",
    [
        "1+" * 10_000 + "1",
        "1+" * 400 + "1",
        "-" * 900 + "1",
        "(" * 500 + ")" * 500,
        "[" * 11 + "]" * 11,
        "1e400",
        "[1, -1e400]",
        "1" * 31,
        "0x" + "f" * 900,
        "10**400",
        "print(1)",
        "x",
        "",
        "\0",
        "1is 1",
        "'\ud800",
    ],
)
def test_literals_that_are_refused(text):
    started = time.monotonic()
    with pytest.raises(InputError) as raised:
        parse_literal(text, "`x`")
    assert str(raised.value).startswith("`x`")
    assert time.monotonic() - started < 1


def test_text_is_read_from_regular_files_only(tmp_path):
    (tmp_path / "text").write_bytes("é\n".encode())
    assert read_text(tmp_path / "text") == "é\n"
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa")
    assert read_text(tmp_path / "marked") == "a"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "latin").write_bytes(b"ab\xff")
    for name, problem in {
        "pipe": "is not a regular file",
        "loop": "Too many levels of symbolic links",
        "latin": r"is not UTF-8 text \(byte 2\)",
        "nothing": "No such file",
        "x" * 300: "File name too long",
        "\0": "null",
        ".": "is not a regular file",
    }.items():
        with pytest.raises(InputError, match=problem):
            read_text(tmp_path / name)
    with pytest.raises(InputError, match="more than 2 bytes"):
        read_text(tmp_path / "text", limit=2)


def test_messages_are_one_short_line_that_no_terminal_obeys():
    assert printable("a\x1b[31m\nb\u202e\ud800é\x07") == r"a\x1b[31m\nb\u202e\ud800é\x07"
    shortened = str(InputError("<" + "x" * 1_000_000 + ">"))
    assert len(shortened) == 1_000
    assert shortened.startswith("<xx")
    assert shortened.endswith("xx>")
    assert "\n" not in str(InputError(json.dumps(["a"], indent=2)))


def test_a_very_long_name_is_compared_quickly():
    started = time.monotonic()
    assert nearest("lenet" + "x" * 1_000_000, ["lenet", "mlp"]) == "known: `lenet`, `mlp`."
    assert time.monotonic() - started < 1
