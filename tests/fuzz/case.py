"""The `Entrance` class, and the exceptions that a case raises to report a fault."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Silent(Exception):
    """Raised if input that must be refused is accepted, or if input gives a wrong result."""


class RawOutput(Exception):
    """Raised if the output contains control characters or a line that is too long."""


@dataclass(frozen=True)
class Entrance:
    """One place where the library receives input from outside.

    - `attack`: makes a case from a random generator in an empty folder, and feeds it to the library. The function
      returns if the library accepts the input, raises `InputError` if the library refuses the input, and raises any
      other exception for a fault. The input stays in the folder, so that a case can be inspected.
    - `prepare`: makes, in a folder, the intact files or objects from which all cases start. The function runs once per
      process, outside the time limit.
    """

    attack: Callable[[random.Random, Path, Any], None]
    prepare: Callable[[Path], Any] = lambda folder: None
