"""The known data sets, and `find_source`, which finds the source that a name, a folder or a Hub id selects."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .. import plugins
from ..errors import InputError, nearest

__all__ = ["GROUP", "SOURCES", "Source", "check_name", "find_source", "register"]

#: Entry points of this group add data sets: each names an object that `register` accepts as `source`.
GROUP = "eqxcnn.data"


@dataclass(frozen=True)
class Source:
    """The origin of the rows: a Hub repository, a local folder or a function; by default scikit-learn's digits.

    **Arguments:**

    - `hub`: the repository on the Hugging Face Hub, `org/name`.
    - `config`: the repository's configuration, if it has several.
    - `folder`: a local folder, instead of `hub`.
    - `image_size`: the `(height, width)` that all images are known to share; `None` if they differ or are not known.
    - `channels`: 1 if all images are known to be gray; `None` if their headers must be read.
    - `resizes_to_model`: whether to resize the images to the network's input size by default; meant for tiny images.
    - `image_column`, `label_column`: the columns to use, if several columns are suitable.
    - `test_split`: the split to test on; by default `test`, else `validation`.
    - `rows`: a function that returns the splits as tables of `datasets`.
    """

    hub: str | None = None
    config: str | None = None
    folder: Path | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    resizes_to_model: bool = False
    image_column: str | None = None
    label_column: str | Sequence[str] | None = None
    test_split: str | None = None
    rows: Callable[[], Any] | None = None

    @property
    def is_digits(self) -> bool:
        """Whether the rows are scikit-learn's digits."""
        return self.hub is None and self.folder is None and self.rows is None

    def absolute_name(self, text: str) -> str:
        """Returns a string from which `find_source` finds this source in any working directory.

        **Arguments:**

        - `text`: the text from which `find_source` found this source in the current working directory.
        """
        if self.folder is None:
            return text
        return f"{self.folder}:{self.config}" if self.config else str(self.folder)

    @property
    def url(self) -> str | None:
        """The address of the Hub page with the license and the authors; `None` if the data set is not from the Hub."""
        return None if self.hub is None else f"https://huggingface.co/datasets/{self.hub}"


#: The data sets with a short name. The license of a data set from the Hub is on its page.
SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source(image_size=(8, 8), channels=1, resizes_to_model=True),
        "mnist": Source("ylecun/mnist", image_size=(28, 28), channels=1),
        "fashion_mnist": Source("zalando-datasets/fashion_mnist", image_size=(28, 28), channels=1),
        "kmnist": Source("tanganke/kmnist", image_size=(28, 28), channels=1),
        "cifar10": Source("uoft-cs/cifar10", image_size=(32, 32)),
        "cifar100": Source("uoft-cs/cifar100", image_size=(32, 32), label_column="fine_label"),
        "svhn": Source("ufldl-stanford/svhn", "cropped_digits", image_size=(32, 32)),
        "stl10": Source("tanganke/stl10", image_size=(96, 96)),
        "eurosat": Source("blanchon/EuroSAT_RGB", image_size=(64, 64)),
        "tiny_imagenet": Source("zh-plus/tiny-imagenet", image_size=(64, 64)),
        "imagenette": Source("frgfm/imagenette", "320px"),
        "cats_vs_dogs": Source("microsoft/cats_vs_dogs"),
        "oxford_pets": Source("timm/oxford-iiit-pet"),
        "flowers102": Source("dpdl-benchmark/oxford_flowers102"),
        "food101": Source("ethz/food101"),
        "beans": Source("AI-Lab-Makerere/beans"),
    }
)

#: A run's folder is named after its data set, and file systems limit a name to 255 bytes.
_NAME_LENGTH = 40
#: The syntax of a data set's name; no path with a slash and no Hub id matches it.
_NAME = re.compile(r"[A-Za-z]\w*(?:[.-]\w+)*", re.ASCII)
#: In a recipe, `own` stands for data that are passed from Python.
_OWN = "own"
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")


_registered: dict[str, Source] = {}


def register(name: str, source: Source | Callable[[], Any]) -> None:
    """Adds a data set, whose name then works in `open_source`, in recipes and on the command line.

    A program must register the data set before it resumes or evaluates a run on it; on the command line, `--import`
    imports the module that registers it. An installed package can add data sets with entry points of the group
    `eqxcnn.data` instead.

    **Arguments:**

    - `name`: letters, digits, `_`, `-` and `.`, with a letter first. A name that exists already is refused.
    - `source`: a `Source` with `hub`, `folder` or `rows`; or a function that returns a `datasets.DatasetDict`, which is
        called when the data set is opened.

    **Raises:** `InputError` for a name that exists or is invalid, or for an unsuitable `source`.
    """
    check_name(name)
    added = _to_source(source, f"`{name}`")
    if name in (_OWN, *SOURCES) or _registered.get(name, added) != added:
        raise InputError(f"the data set `{name}` exists already: choose another name.")
    _registered[name] = added


def check_name(name: str) -> None:
    """Checks the name of a data set, which becomes part of a folder's name.

    **Raises:** `InputError`.
    """
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        raise InputError(
            f"the name {name!r} of a data set must have at most {_NAME_LENGTH} letters, digits, `_`, `-` and `.`, and "
            "start with a letter."
        )


def _to_source(value: Any, what: str) -> Source:
    if callable(value):
        return Source(rows=value)
    if not isinstance(value, Source) or value.is_digits:
        raise InputError(
            f"the data set {what} must be an `eqxcnn.data.Source` with `hub`, `folder` or `rows`, or a function that "
            "returns a `datasets.DatasetDict`."
        )
    return value


def _find_added(name: str) -> Source | None:
    """Returns the data set that `register` or another package's entry point added under a name."""
    if name in _registered or not _NAME.fullmatch(name):
        return _registered.get(name)
    point = plugins.entry_points(GROUP).get(name)
    if point is None:
        return None
    return _to_source(plugins.load(point), f"`{name}` of the package `{plugins.package(point)}`")


def find_source(text: str) -> tuple[str, Source]:
    """Returns the data set that `--data TEXT` selects: its short name, used in names of run folders, and its source.

    The text is tried as a name of `SOURCES`, then as a name that was added (see `register`), then as an existing folder
    (write `./mnist` for a folder with the name of a known set), then as a Hub id `org/name`. A configuration follows
    after a colon: `org/name:config`.

    **Raises:** `InputError` if the text is none of these.
    """
    if text in SOURCES:
        return text, SOURCES[text]
    if (added := _find_added(text)) is not None:
        return text, added
    # These functions of `os.path` never raise, even for unknown users, long names or NUL characters.
    place, colon, config = text.rpartition(":")
    if not colon or os.path.isdir(os.path.expanduser(text)):
        place, config = text, ""
    expanded = os.path.expanduser(place)
    if place and os.path.isdir(expanded):
        folder = Path(expanded).resolve()
        return folder.name[:_NAME_LENGTH] or "data", Source(folder=folder, config=config or None)
    if os.path.exists(expanded):
        raise InputError(f"`{text}` is a file: give the folder that contains it.")
    if _HUB_ID.fullmatch(place):
        return place.split("/")[1], Source(place, config or None)
    if any(sign in place for sign in "/\\~") or place in ("", ".", ".."):
        raise InputError(f"there is no folder `{text}`: give a folder that exists, a Hub id `org/name`, or `digits`.")
    known = [*SOURCES, *_registered, *plugins.entry_points(GROUP)]
    raise InputError(
        f"unknown data set `{text}`, and no folder of that name: {nearest(text, known).rstrip('.?')}; "
        "if a module registers it, `--import` the module."
    )
