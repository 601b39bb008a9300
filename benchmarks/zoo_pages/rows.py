"""The facts about each model of the zoo, joined from the registry, the records of trained weights and the benchmark."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eqxcnn.catalog import families
from eqxcnn.types import Variant
from eqxcnn.weights.bundled import Bundled
from eqxcnn.weights.published import PUBLISHED, Published

from ..markdown import format_environment
from ..zoo_speed import PREDICTION, PREDICTION_OF_ONE, TRAINING, case_name

__all__ = ["KINDS", "TASKS", "Row", "Speeds", "make_rows", "read_speeds"]

#: Titles of the data that models were published for, in the order of the pages; others follow by name.
TASKS = {"mnist": "MNIST", "cifar": "CIFAR-10 and CIFAR-100", "catsdogs": "Cats and dogs", "imagenet": "ImageNet"}
#: The measured speeds, in the order of the columns.
KINDS = (TRAINING, PREDICTION, PREDICTION_OF_ONE)


@dataclass(frozen=True)
class Speeds:
    """The results of `benchmarks.zoo_speed`.

    - `images_per_second`: images per second of each case.
    - `source`: the command and the environment, as Markdown; `None` if there are no results.
    """

    images_per_second: Mapping[str, float] = field(default_factory=dict)
    source: tuple[str, str] | None = None

    def of(self, model: str) -> tuple[float | None, ...]:
        """Returns a model's images per second, in the order of `KINDS`; `None` for a kind that was not measured."""
        return tuple(self.images_per_second.get(case_name(model, kind)) for kind in KINDS)


def read_speeds(path: Path) -> Speeds:
    """Reads the results of `benchmarks.zoo_speed`; if the file does not exist, the results are empty."""
    if not path.exists():
        return Speeds()
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return Speeds(record["images_per_second"], (record["command"], format_environment(record["environment"])))


@dataclass(frozen=True)
class Row:
    """A model of the zoo.

    - `name`, `family`, `variant`: its name, its family, and its row in the family's table.
    - `multiply_adds`: number of multiply-adds for one image.
    - `weights`: the record of its trained weights, if there are any.
    - `speeds`: measured images per second, in the order of `KINDS`.
    """

    name: str
    family: str
    variant: Variant
    multiply_adds: int
    weights: Bundled | Published | None
    speeds: tuple[float | None, ...]

    @property
    def bundled(self) -> Bundled | None:
        """The record of trained weights in the package, or `None`; weights on the Hub have no recorded scores."""
        return self.weights if isinstance(self.weights, Bundled) else None

    @property
    def millions(self) -> str:
        """The multiply-adds of one image in millions, as text for the pages."""
        return f"{self.multiply_adds / 1e6:,.2f}"


def make_rows(multiply_adds: Mapping[str, int], speeds: Speeds) -> list[Row]:
    """Returns all models in the order of the pages: by task, family and parameters."""
    others = sorted({variant.task for _, variant in families().values()} - set(TASKS))
    order = [*TASKS, *others]
    rows = [
        Row(name, family, variant, multiply_adds[name], PUBLISHED.get(name), speeds.of(name))
        for name, (family, variant) in families().items()
    ]
    return sorted(rows, key=lambda row: (order.index(row.variant.task), row.family, row.variant.params, row.name))
