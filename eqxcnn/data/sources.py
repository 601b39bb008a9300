"""Which data sets there are, and what a name on the command line stands for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import InputError, nearest


@dataclass(frozen=True)
class Source:
    """Where rows come from: a Hub repository, a local folder, or (neither given) scikit-learn's digits.

    **Arguments:**

    - `hub`: the repository on the Hugging Face Hub, `org/name`.
    - `config`: its configuration, where it has several.
    - `folder`: a local folder instead.
    - `image_size`: the height and width that every image is known to have; `None` when they vary or are not known.
    - `follows_model`: the images are so small that a network does better to have them at its own input size.
    - `image_column`, `label_column`: which columns to take, where the features leave a choice.
    """

    hub: str | None = None
    config: str | None = None
    folder: Path | None = None
    image_size: tuple[int, int] | None = None
    follows_model: bool = False
    image_column: str | None = None
    label_column: str | None = None

    def named(self, text: str) -> str:
        """What `find_source` finds this by from any working directory, where it was found by `text` from this one."""
        if self.folder is None:
            return text
        return f"{self.folder}:{self.config}" if self.config else str(self.folder)

    @property
    def url(self) -> str | None:
        """The data set's page, with its license and its authors."""
        return None if self.hub is None else f"https://huggingface.co/datasets/{self.hub}"


#: The sets that have a short name. Those of the Hub come under the license that their page states.
SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "digits": Source(image_size=(8, 8), follows_model=True),
        "mnist": Source("ylecun/mnist", image_size=(28, 28)),
        "fashion_mnist": Source("zalando-datasets/fashion_mnist", image_size=(28, 28)),
        "kmnist": Source("tanganke/kmnist", image_size=(28, 28)),
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

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")


def find_source(text: str) -> tuple[str, Source]:
    """What `--data TEXT` stands for: a short name for run folders, and where the rows come from.

    Tried in this order: a name of `SOURCES`, an existing folder (write `./mnist` for a folder that is called like a
    set of the table), a Hub id `org/name`. A configuration follows after a colon: `org/name:config`.

    **Raises:** `InputError` when it is none of these.
    """
    if text in SOURCES:
        return text, SOURCES[text]
    place, colon, config = text.rpartition(":")
    if not colon or Path(text).expanduser().is_dir():
        place, config = text, ""
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        return folder.resolve().name or "data", Source(folder=folder.resolve(), config=config or None)
    if folder.is_file():
        raise InputError(f"`{text}` is a file: give the folder it lies in.")
    if _HUB_ID.fullmatch(place):
        return place.split("/")[1], Source(place, config or None)
    if any(sign in place for sign in "/\\~") or place in ("", ".", ".."):
        raise InputError(f"there is no folder `{text}`: give a folder that exists, a Hub id `org/name`, or `digits`.")
    raise InputError(f"unknown data set `{text}`, and no folder of that name: {nearest(text, SOURCES)}")
