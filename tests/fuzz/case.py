"""What an entrance is, and the errors by which a case tells its verdict."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Silent(Exception):
    """The input was accepted though it must not be, or gave a wrong result."""


class RawOutput(Exception):
    """Something was printed that a terminal would obey, or a line that is too long."""


@dataclass(frozen=True)
class Entrance:
    """One place where input from outside enters.

    - `attack`: makes a case from a generator in an empty folder, and feeds it to the library. It returns if the input
      was accepted, raises `InputError` if it was refused, and anything else for a fault. All that decides the case lies
      in the folder afterwards, so that it can be looked at.
    - `prepare`: makes what all cases start from in a folder, once per process, outside of the time limit.
    """

    attack: Callable[[random.Random, Path, Any], None]
    prepare: Callable[[Path], Any] = lambda folder: None
