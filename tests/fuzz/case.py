"""The `Entrance` class, and the exceptions that a case raises to report a fault."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Silent(Exception):
    """Input that must be refused was accepted, or gave a wrong result."""


class RawOutput(Exception):
    """Control characters or a line that is too long were printed."""


@dataclass(frozen=True)
class Entrance:
    """One place where input from outside enters.

    - `attack`: makes a case from a generator in an empty folder, and feeds it to the library. It returns if the input
      was accepted, raises `InputError` if it was refused, and any other exception for a fault. It leaves the input in
      the folder, so that a case can be inspected.
    - `prepare`: makes the intact files or objects that all cases start from, in a folder, once per process and outside
      the time limit.
    """

    attack: Callable[[random.Random, Path, Any], None]
    prepare: Callable[[Path], Any] = lambda folder: None
