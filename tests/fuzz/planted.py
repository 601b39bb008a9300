"""Entrances with planted faults, with which `tests/test_fuzz.py` checks that the fuzzer finds faults."""

import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

from .case import Entrance, RawOutput, Silent


class InputError(ValueError):
    """Has the same name as the library's `InputError`, whose import would take seconds."""


def _refuse_or_accept(rng: random.Random, folder: Path, base: Any) -> None:
    (folder / "case.txt").write_text(str(rng.random()))
    if rng.random() < 0.5:
        raise InputError("refused")


def _raise(rng: random.Random, folder: Path, base: Any) -> None:
    (folder / "case.txt").write_bytes(bytes(rng.randrange(1, 100)))
    raise ValueError("planted")


def _sleep(rng: random.Random, folder: Path, base: Any) -> None:
    time.sleep(60)


def _allocate(rng: random.Random, folder: Path, base: Any) -> None:
    """Allocates 5 GB in small steps; a test with a lower memory limit ends the process before the last step."""
    taken = []
    for _ in range(500):
        taken.append(b"\1" * 10_000_000)
        time.sleep(0.02)


def _accept_silently(rng: random.Random, folder: Path, base: Any) -> None:
    raise Silent("a damaged file was loaded: it gives 3")


def _print_raw(rng: random.Random, folder: Path, base: Any) -> None:
    raise RawOutput("a command prints control characters: \x1b")


def _connect(rng: random.Random, folder: Path, base: Any) -> None:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except OSError:
        print("the case itself hides it", file=sys.stderr)


def _die(rng: random.Random, folder: Path, base: Any) -> None:
    os.abort()


ENTRANCES = {
    "sound": Entrance(_refuse_or_accept),
    "traceback": Entrance(_raise),
    "hang": Entrance(_sleep),
    "memory": Entrance(_allocate),
    "silent": Entrance(_accept_silently),
    "raw_output": Entrance(_print_raw),
    "network": Entrance(_connect),
    "crash": Entrance(_die),
}
