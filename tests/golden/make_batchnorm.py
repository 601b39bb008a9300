"""Writes batchnorm.json: results of torch.nn.BatchNorm2d over 20 training steps. Needs torch; the tests do not.

Run `python tests/golden/make_batchnorm.py`. `tests/layers/test_norm.py` draws the same inputs, so only results are
stored.
"""

import json
from pathlib import Path

import numpy as np
import torch

STEPS, LEARNING_RATE = 20, 0.1


def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a batch and the gradient of the loss with respect to the layer's output.

    The mean and the standard deviation of the batch grow with the step.
    """
    rng = np.random.RandomState(step)
    x, gradient = rng.normal(size=(2, 4, 3, 5, 2))
    x = x * (1 + 0.2 * step) + 0.3 * step
    return (torch.tensor(array.transpose(0, 3, 1, 2), dtype=torch.float32) for array in (x, gradient))


def to_list(tensor: torch.Tensor) -> list[float]:
    """Returns all values in channels-last order, with the precision of float32."""
    channels_last = tensor.detach().movedim(1, -1) if tensor.ndim == 4 else tensor.detach()
    return [float(f"{value:.8g}") for value in channels_last.flatten().tolist()]


def train(norm: torch.nn.BatchNorm2d, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, list[float]]:
    norm.zero_grad()
    x.requires_grad_()
    y = norm.train()(x)
    y.backward(gradient)
    results = {
        "y": to_list(y),
        "dx": to_list(x.grad),
        "dweight": to_list(norm.weight.grad),
        "dbias": to_list(norm.bias.grad),
        "running_mean": to_list(norm.running_mean),
        "running_var": to_list(norm.running_var),
    }
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter -= LEARNING_RATE * parameter.grad
    return results


def main() -> None:
    norm = torch.nn.BatchNorm2d(2)
    unseen, _ = draw(100)
    results = {"torch": torch.__version__, "steps": [], "eval": {}}
    for step in range(STEPS):
        results["steps"].append(train(norm, *draw(step)))
        if step in (0, STEPS - 1):
            results["eval"][step] = to_list(norm.eval()(unseen))
    x, gradient = draw(0)
    results["mean_100"] = train(torch.nn.BatchNorm2d(2), x + 100, gradient)
    Path(__file__).with_name("batchnorm.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
