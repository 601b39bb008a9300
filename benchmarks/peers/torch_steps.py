"""Training steps in PyTorch: eager or compiled, channels first or last; bfloat16 by autocast."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..torch_loader import need
from ..workloads import MOMENTUM, RATES, Workload
from .pytorch import NETS

_FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


def torch_step(workload: Workload, form: str, channels: str) -> Callable[[int], None]:
    """A function that takes so many steps and waits for the last.

    **Arguments:**

    - `form`: `"eager"` or `"compiled"`.
    - `channels`: `"first"` or `"last"`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Both are what its performance guide tells everybody to set; they do nothing on a CPU.
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    array, classes = workload.data()
    images = torch.from_numpy(array).permute(0, 3, 1, 2).to(device).contiguous(memory_format=_FORMATS[channels])
    labels = torch.from_numpy(classes.astype(np.int64)).to(device)
    # torchvision's own where it has the network.
    net: Any = NETS[workload.net]() if workload.net in NETS else need("torchvision").models.get_model(workload.net)
    net = net.to(device).to(memory_format=_FORMATS[channels])
    optimizer = _optimizer(workload, net, fused=device.type == "cuda")
    # The networks here are of one class, `nn.Sequential`, and torch would take them for one compiled again and again.
    torch._dynamo.config.recompile_limit = 1000
    run: Any = torch.compile(net) if form == "compiled" else net
    is_narrow = workload.precision == "bf16"

    def take(steps: int) -> None:
        loss = torch.zeros(())
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=is_narrow):
                loss = cross_entropy(run(images), labels)
            loss.backward()
            optimizer.step()
        float(loss.detach())

    return take


def _optimizer(workload: Workload, net: torch.nn.Module, fused: bool) -> torch.optim.Optimizer:
    rate = RATES[workload.optimizer]
    if workload.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), rate, fused=fused)
    return torch.optim.SGD(net.parameters(), rate, MOMENTUM if workload.optimizer == "momentum" else 0.0, fused=fused)
