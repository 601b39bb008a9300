"""Mutations of bytes, of text and of plain values, drawn from a seeded generator."""

import copy
import random
from typing import Any

#: Values that no setting, entry or argument expects.
HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 255, 65_537, 2**31,
    2**32 - 1, 2**63, 10**30, 10**400, "", " ", "a", "nan", "1e999", "0x10", "1_0", "2026-02-30", "\0", "\x1b[31mred",
    "\r\n", "\u202egnp", "\ud800", "\ufeff", "é" * 300, "x" * 20_000, "../../..", "/dev/zero", "/proc/self/environ",
    "%s%n", "{0.__class__}", "__import__('os')", "(" * 500, "[" * 500, "9" * 5_000, [], {}, [[]], [None], {"a": 1},
    [1, 2], [1.5] * 3, ["a", "a"], [0] * 5_000, {"": ""}, [[[[[[[[[[[[1]]]]]]]]]]]],
)  # fmt: skip

_TOKENS = (
    "&a", "*a", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "<<: *a", "---", "...", "? [1]", "\t",
    "\0", "\x1b[2J", "\x85", "\u2028", "\u202e", "\ufeff", "{" * 60, "[" * 200, "- " * 80, "'", '"', "|", ">",
    "%YAML 9.9", ".nan", ".inf", "1e999", "0o777", "0b1", "1:30:00", "2026-02-30", "2026-11-29T25:61:00Z", "~", "yes",
    "9" * 5_000,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Returns the data with one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice((_flip, _flip, _overwrite, _cut, _remove, _insert, _repeat, _set_number))(rng, data)
    return data


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    """Returns the data with one bit flipped."""
    return _flip(rng, data, 1)


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Returns a copy of a plain value in which one place at any depth is replaced, removed, renamed or repeated."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value or rng.random() < 0.05:
        return rng.choice(HOSTILE)
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = rng.choice(places)
    action = rng.random()
    if action < 0.35:
        value[place] = mutate_value(rng, value[place])
    elif action < 0.7:
        value[place] = rng.choice(HOSTILE)
    elif action < 0.78:
        del value[place]
    elif isinstance(value, dict):
        name = rng.choice((str(place) + "x", str(place).upper(), str(place)[:-1], rng.choice(_TOKENS), "key", "model"))
        value[name] = value.pop(place) if action < 0.9 else copy.deepcopy(value[place])
    else:
        value.insert(place, copy.deepcopy(value[place]) if action < 0.9 else rng.choice(HOSTILE))
    return value


def mutate_text(rng: random.Random, text: str) -> bytes:
    """Returns a text, as bytes, with lines removed, repeated or swapped, and words replaced by hostile ones."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, rng.choice(lines))
            case 2:
                lines.insert(at, rng.choice(_TOKENS))
            case 3:
                head, sign, _ = lines[at].partition(": ")
                lines[at] = f"{head}{sign}{write_hostile(rng)}"
            case 4:
                lines[at] = " " * rng.randrange(1, 5) + lines[at]
            case 5:
                place = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + rng.choice(_TOKENS) + lines[at][place:]
            case _:
                head, sign, tail = lines[at].partition(": ")
                lines[at] = f"{head[:-1]}{sign}{tail}" if rng.random() < 0.5 else f"{head}:{tail}"
        text = "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data


def write_hostile(rng: random.Random) -> str:
    """Returns a hostile value or token as text."""
    value = rng.choice(HOSTILE if rng.random() < 0.7 else _TOKENS)
    return value if isinstance(value, str) else _write_value(value)


def _write_value(value: Any) -> str:
    # Python refuses to write whole numbers of more than 4,300 digits; these have fewer.
    return repr(value)


def _flip(rng: random.Random, data: bytes, most: int = 8) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + bytes([rng.choice((0, 255, rng.randrange(256)))]) * (end - start) + data[end:]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(rng: random.Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + data[end:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 3, 50)) + data[end:]


def _set_number(rng: random.Random, data: bytes) -> bytes:
    """Writes an extreme whole number of 2, 4 or 8 bytes, mostly near the start, where formats store sizes."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(min(len(data), 64) if data and rng.random() < 0.7 else len(data) + 1)
    number = rng.choice(
        (0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 70_000 % 2 ** (8 * size))
    )
    return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _slice(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, rng.choice((4, 64, 1000))))
