"""PyTorch's `DataLoader`, whose worker processes augment each image with Pillow."""

from collections.abc import Sequence
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from eqxcnn.errors import InputError

#: The arguments of `pip install` for the compared PyTorch.
TORCH_PACKAGES = "torch==2.13.0 torchvision==0.28.0"
#: Operators that must be declared before torchvision is imported if its build lacks them, because the import registers
#: functions for their output shapes.
_OPERATORS = ("nms", "qnms", "roi_align", "ps_roi_align", "ps_roi_pool", "roi_pool", "deform_conv2d")
_OPERATORS += tuple(f"_{name}_backward" for name in _OPERATORS[2:])


class ImageDataset:
    """A PyTorch data set of labeled images, each randomly flipped and cropped, then normalized.

    **Arguments:**

    - `rows`: decoded pixels, paths of image files, or a `datasets.Dataset`, which decodes each image on access.
    - `column`: name of the image column of a `datasets.Dataset`; `None` for pixels and paths.
    - `labels`: class of each row.
    - `size`: height and width of the crops.
    - `mean`, `std`: per-channel normalization.
    - `scale`: limits of a crop's area, as a fraction of the image's area.
    - `ratio`: limits of a crop's aspect ratio (width / height).
    """

    def __init__(
        self,
        rows: UInt8[np.ndarray, "n h w c"] | Sequence[str] | Any,
        column: str | None,
        labels: Int[np.ndarray, " n"],
        size: tuple[int, int],
        mean: list[float],
        std: list[float],
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = (0.9, 1.1),
    ):
        self._rows, self._column, self._labels = rows, column, labels
        self._size, self._mean, self._std = size, mean, std
        self._scale, self._ratio = scale, ratio

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = self._rows[index]
        if isinstance(row, str):
            image = Image.open(row).convert("RGB")  # as torchvision's `ImageFolder` reads it
        else:
            image = Image.fromarray(row) if self._column is None else row[self._column]
        return self._augment(image), int(self._labels[index])

    @cached_property
    def _augment(self) -> Any:
        # Built in the worker at its first image: unpickling the transforms would import torchvision without the
        # workaround of `import_torch_module`.
        transforms = _import_transforms()
        return transforms.Compose(
            [
                # Cropped first: torchvision's own order, and faster, since the crop is smaller than a photograph.
                transforms.RandomResizedCrop(self._size, scale=self._scale, ratio=self._ratio),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(self._mean, self._std),
            ]
        )


def make_loader(dataset: ImageDataset, batch_size: int, workers: int) -> Any:
    """Returns a loader of shuffled full batches, whose worker processes persist between epochs.

    **Raises:** `InputError` if torch or torchvision is not installed.
    """
    torch = import_torch_module("torch")
    import_torch_module("torchvision")
    # Not "fork": a thread of JAX may hold a lock while the process forks.
    return torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True,
        multiprocessing_context="spawn",
    )  # fmt: skip


def import_torch_module(name: str) -> Any:
    """Imports and returns the module `torch` or `torchvision`.

    **Raises:** `InputError` if the module is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"the comparison needs {name}, which is not installed: run `pip install {TORCH_PACKAGES}`, or leave "
            "PyTorch out with `--no-torch`"
        ) from error
    except RuntimeError:
        return _import_without_operators(name)


def _import_transforms() -> Any:
    import_torch_module("torchvision")
    return import_module("torchvision.transforms")


@cache
def _import_without_operators(name: str) -> Any:
    """Imports `name` after declaring the operators that torchvision lacks if it was built for another torch version."""
    torch: Any = import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor a) -> Tensor")
    # The declarations last as long as the library object.
    torch._torchvision_operators = library
    return import_module(name)
