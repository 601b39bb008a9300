"""Writes batchnorm.json: what torch.nn.BatchNorm2d does in 20 training steps. Needs torch; the tests do not.

`python tests/golden/make_batchnorm.py`; `tests/test_norm.py` draws the same inputs, so only the answers are stored.
"""

import json
from pathlib import Path

import numpy as np
import torch

STEPS, LEARNING_RATE = 20, 0.1


def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch whose mean and deviation grow with the step, and the gradient of the loss in its output."""
    rng = np.random.RandomState(step)
    x, gradient = rng.normal(size=(2, 4, 3, 5, 2))
    x = x * (1 + 0.2 * step) + 0.3 * step
    return (torch.tensor(each.transpose(0, 3, 1, 2), dtype=torch.float32) for each in (x, gradient))


def numbers(tensor: torch.Tensor) -> list[float]:
    """All values in channels-last order, with the digits that float32 has."""
    last = tensor.detach().movedim(1, -1) if tensor.ndim == 4 else tensor.detach()
    return [float(f"{value:.8g}") for value in last.flatten().tolist()]


def train(norm: torch.nn.BatchNorm2d, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, list[float]]:
    norm.zero_grad()
    x.requires_grad_()
    y = norm.train()(x)
    y.backward(gradient)
    facts = {
        "y": numbers(y),
        "dx": numbers(x.grad),
        "dweight": numbers(norm.weight.grad),
        "dbias": numbers(norm.bias.grad),
        "running_mean": numbers(norm.running_mean),
        "running_var": numbers(norm.running_var),
    }
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter -= LEARNING_RATE * parameter.grad
    return facts


def main() -> None:
    norm = torch.nn.BatchNorm2d(2)
    unseen, _ = draw(100)
    facts = {"torch": torch.__version__, "steps": [], "eval": {}}
    for step in range(STEPS):
        facts["steps"].append(train(norm, *draw(step)))
        if step in (0, STEPS - 1):
            facts["eval"][step] = numbers(norm.eval()(unseen))
    x, gradient = draw(0)
    facts["mean_100"] = train(torch.nn.BatchNorm2d(2), x + 100, gradient)
    Path(__file__).with_name("batchnorm.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
