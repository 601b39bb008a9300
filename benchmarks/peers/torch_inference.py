"""Classification in PyTorch: eager or compiled, channels first or last."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..torch_loader import import_torch_module
from .pytorch import NETS

__all__ = ["torch_classify"]

_FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


def torch_classify(model: str, form: str, channels: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from pixels `uint8[b h w c]` to scores, with random weights.

    **Arguments:**

    - `form`: `"eager"` or `"compiled"`.
    - `channels`: `"first"` or `"last"`.
    """
    # Networks that are not in `NETS` are torchvision's.
    net: Any = NETS[model]() if model in NETS else import_torch_module("torchvision").models.get_model(model)
    net = net.eval().to(memory_format=_FORMATS[channels])

    def classify(pixels: torch.Tensor) -> torch.Tensor:
        images = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        return net(images.contiguous(memory_format=_FORMATS[channels]))

    # Not dynamic: a program for this batch size only.
    run = torch.compile(classify, dynamic=False) if form == "compiled" else classify

    @torch.inference_mode()
    def call(pixels: np.ndarray) -> np.ndarray:
        return run(torch.from_numpy(pixels)).numpy()

    return call
