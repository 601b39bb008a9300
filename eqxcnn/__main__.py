"""`python -m eqxcnn`: lists the commands."""

from collections.abc import Sequence

from .cli import run_command
from .errors import InputError, nearest

#: Each command, run as `python -m eqxcnn.NAME`, and its purpose.
COMMANDS = {
    "train": "Trains a model from a recipe, from flags, or from both; resumes interrupted runs.",
    "evaluate": "Measures a trained classifier's accuracy, loss and per-class scores on labeled images.",
    "predict": "Prints the most probable classes of image files.",
    "serve": "Serves a trained classifier over HTTP, with a page to try it.",
    "export": "Writes a trained classifier as StableHLO, ONNX or PyTorch's weights.",
    "report": "Draws the figures of a run and writes a page about it.",
    "hub": "Shares trained classifiers on the Hugging Face Hub: push with a model card, pull.",
    "data": "Shows what a data set contains: classes, sizes, unreadable and repeated images.",
    "zoo": "Lists the models, and shows the facts and the layers of one model.",
}


def main(arguments: Sequence[str]) -> None:
    """Prints the commands.

    **Raises:** `InputError` if there is any argument other than `--help`.
    """
    if arguments and arguments[0] in COMMANDS:
        raise InputError(f"`python -m eqxcnn` only lists the commands: use `python -m eqxcnn.{arguments[0]}`")
    if arguments and arguments[0] not in ("-h", "--help"):
        raise InputError(f"there is no command `{arguments[0]}`; {nearest(arguments[0], COMMANDS)}")
    width = max(map(len, COMMANDS))
    lines = [f"  python -m eqxcnn.{name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    print("\n".join(["Commands (add --help for their settings):", "", *lines]))


if __name__ == "__main__":
    run_command(main)
