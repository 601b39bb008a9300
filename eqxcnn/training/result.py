"""`Result`: what a run returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

__all__ = ["Result"]


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run.

    - `folder`: the run's folder; `eqxcnn.load(folder)` loads the trained classifier.
    - `test`: scores on the test split, evaluated once, at the end.
    - `metrics`: the rows of `metrics.jsonl`: one per epoch, then one for the test.
    - `class_names`: the names of the classes.
    """

    folder: Path
    test: Scores
    metrics: list[dict[str, Any]]
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        accuracy = f"{self.test.accuracy:.2%} of {self.test.count:,} test images"
        return f"Result({accuracy} classified correctly, folder {str(self.folder)!r})"

    def plot(self) -> Figure:
        """Returns the learning curves as a Matplotlib figure, which Jupyter shows."""
        from ..plots.learning_curves import curves_of_rows

        return curves_of_rows(self.metrics)

    def confusion(self) -> Figure:
        """Returns the confusion matrix of the test images as a Matplotlib figure, which Jupyter shows."""
        from ..plots.figures import confusion_matrix

        return confusion_matrix(self.test.confusion, self.class_names)
