"""The layers of `layer_cases` in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .layer_cases import Layer, make_batch
from .torch_loader import import_torch_module


def torch_case(layer: Layer, backward: bool, layout: str) -> Callable[[], Any]:
    """Returns a function that calls PyTorch's layer on a batch and, if `backward` is true, computes gradients.

    **Arguments:**

    - `layout`: memory format of the batch, `contiguous` or `channels_last`.

    **Raises:** `InputError` if torch is not installed.
    """
    torch = import_torch_module("torch")
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    module = _make_module(torch.nn, layer).to(memory_format=memory_format)
    x = torch.from_numpy(np.asarray(make_batch(layer)).transpose(0, 3, 1, 2).copy()).to(memory_format=memory_format)
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return module(x)

        return forward
    x.requires_grad_()
    cotangent = torch.ones_like(module(x))

    def forward_and_backward() -> Any:
        module.zero_grad(set_to_none=True)
        x.grad = None
        out = module(x)
        out.backward(cotangent)
        return out

    return forward_and_backward


def _make_module(nn: Any, layer: Layer) -> Any:
    channels = layer.image[-1]
    window = (layer.kernel, layer.stride, layer.padding)
    match layer.kind:
        case "conv":
            return nn.Conv2d(channels, layer.out_channels, *window, groups=layer.groups, bias=False)
        case "max":
            return nn.MaxPool2d(*window)
        case "avg":
            return nn.AvgPool2d(*window)
        case "global":
            return nn.AdaptiveAvgPool2d(1)
        case "norm":
            return nn.BatchNorm2d(channels)
