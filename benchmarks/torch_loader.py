"""The other way to feed a network: torch's `DataLoader`, whose processes change each image with Pillow."""

from functools import cache, cached_property
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from eqxcnn.errors import InputError

#: Operators of torchvision that it registers shapes for when it is imported, whether its build has them or not.
_OPERATORS = ("nms", "qnms", "roi_align", "ps_roi_align", "ps_roi_pool", "roi_pool", "deform_conv2d")
_OPERATORS += tuple(f"_{name}_backward" for name in _OPERATORS[2:])


class Pictures:
    """A data set as torch sees one: Pillow images, each flipped, cropped and normalized, with its label.

    **Arguments:**

    - `rows`: decoded pixels, or rows of `datasets`, which decodes each one when it is asked for.
    - `column`: the name of such rows' images; `None` for pixels.
    - `labels`: the class of each row.
    - `size`, `mean`, `std`: height and width, and the normalization, a channel.
    """

    def __init__(
        self,
        rows: UInt8[np.ndarray, "n h w c"] | Any,
        column: str | None,
        labels: Int[np.ndarray, " n"],
        size: tuple[int, int],
        mean: list[float],
        std: list[float],
    ):
        self._rows, self._column, self._labels = rows, column, labels
        self._size, self._mean, self._std = size, mean, std

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = Image.fromarray(self._rows[index]) if self._column is None else self._rows[index][self._column]
        return self._change(picture), int(self._labels[index])

    @cached_property
    def _change(self) -> Any:
        # Made at the first image, in the process that changes it: pickled, it would import torchvision there by itself.
        transforms = _transforms()
        return transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomResizedCrop(self._size, scale=(0.8, 1.0), ratio=(0.9, 1.1)),
                transforms.ToTensor(),
                transforms.Normalize(self._mean, self._std),
            ]
        )


def make_loader(pictures: Pictures, batch_size: int, workers: int) -> Any:
    """Shuffled full batches, made by processes that stay from one epoch to the next.

    **Raises:** `InputError` without torch or torchvision.
    """
    torch = need("torch")
    need("torchvision")
    # Not forked: a thread of JAX's may hold a lock just then.
    return torch.utils.data.DataLoader(
        pictures, batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True,
        multiprocessing_context="spawn",
    )  # fmt: skip


def need(name: str) -> Any:
    """The module `torch` or `torchvision`.

    **Raises:** `InputError` when it is not there.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"this compares with {name}, which is not installed: `pip install torch==2.13.0 torchvision`, or leave "
            "torch out with `--no-torch`"
        ) from error
    except RuntimeError:
        return _without_operators(name)


def _transforms() -> Any:
    need("torchvision")
    return import_module("torchvision.transforms")


@cache
def _without_operators(name: str) -> Any:
    """A torchvision that was built for another torch has no operators, and looks for them; its transforms need none."""
    torch: Any = import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor a) -> Tensor")
    # What it declares goes when it goes.
    torch._torchvision_operators = library
    return import_module(name)
