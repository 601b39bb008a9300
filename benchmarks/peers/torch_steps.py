"""Training steps in PyTorch: eager or compiled, channels first or last, bfloat16 through autocast."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..torch_loader import import_torch_module
from ..workloads import LEARNING_RATES, MOMENTUM, Workload
from .pytorch import NETS

_FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


def torch_step(workload: Workload, form: str, channels: str) -> Callable[[int], None]:
    """Returns a function that runs a given number of training steps in PyTorch and waits for the last step.

    **Arguments:**

    - `form`: `"eager"` or `"compiled"`.
    - `channels`: `"first"` or `"last"`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # As PyTorch's performance guide recommends; both have no effect on a CPU.
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    array, classes = workload.make_batch()
    images = torch.from_numpy(array).permute(0, 3, 1, 2).to(device).contiguous(memory_format=_FORMATS[channels])
    labels = torch.from_numpy(classes.astype(np.int64)).to(device)
    # Networks that are not in `NETS` are torchvision's.
    if workload.net in NETS:
        net: Any = NETS[workload.net]()
    else:
        net = import_torch_module("torchvision").models.get_model(workload.net)
    net = net.to(device).to(memory_format=_FORMATS[channels])
    optimizer = _make_optimizer(workload, net, fused=device.type == "cuda")
    # All networks have the class `nn.Sequential`, so torch counts them as recompilations of one.
    torch._dynamo.config.recompile_limit = 1000
    forward: Any = torch.compile(net) if form == "compiled" else net
    use_bfloat16 = workload.precision == "bf16"

    def run_steps(steps: int) -> None:
        loss = torch.zeros(())
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
                loss = cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        float(loss.detach())

    return run_steps


def _make_optimizer(workload: Workload, net: torch.nn.Module, fused: bool) -> torch.optim.Optimizer:
    rate = LEARNING_RATES[workload.optimizer]
    if workload.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), rate, fused=fused)
    return torch.optim.SGD(net.parameters(), rate, MOMENTUM if workload.optimizer == "momentum" else 0.0, fused=fused)
