"""The layers of `layer_cases` in torch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .layer_cases import Layer, pixels
from .torch_loader import need


def torch_case(layer: Layer, backward: bool, layout: str) -> Callable[[], Any]:
    """A call of torch's layer on a batch, and of its gradients.

    **Arguments:**

    - `layout`: `contiguous` or `channels_last`, how the batch lies in memory.

    **Raises:** `InputError` without torch.
    """
    torch = need("torch")
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    module = _module(torch.nn, layer).to(memory_format=order)
    x = torch.from_numpy(np.asarray(pixels(layer)).transpose(0, 3, 1, 2).copy()).to(memory_format=order)
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return module(x)

        return forward
    x.requires_grad_()
    slope = torch.ones_like(module(x))

    def both() -> Any:
        module.zero_grad(set_to_none=True)
        x.grad = None
        out = module(x)
        out.backward(slope)
        return out

    return both


def _module(nn: Any, layer: Layer) -> Any:
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
