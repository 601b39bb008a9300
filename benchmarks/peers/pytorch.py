"""Networks in PyTorch, in the style of PyTorch's own examples."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from .linen import MOBILE_STAGES


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def _lenet() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def _simple_cnn(channels: int, features: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            _conv_norm(in_channels, width, 3, stride), nn.ReLU(inplace=True), _conv_norm(width, width, 3)
        )
        self.stride, self.added_channels = stride, width - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)
        if self.added_channels:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added_channels))
        return functional.relu(x + y, inplace=True)


def _resnet(n: int) -> nn.Module:
    rows = [(16, 16, 1)] * n + [(16, 32, 2)] + [(32, 32, 1)] * (n - 1) + [(32, 64, 2)] + [(64, 64, 1)] * (n - 1)
    blocks = (Block(*row) for row in rows)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(_conv_norm(3, 16, 3), nn.ReLU(inplace=True), *blocks, *head)


class InvertedResidual(nn.Module):
    """An inverted residual block with ReLU, and a shortcut if the stride is 1."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int):
        super().__init__()
        hidden = expansion * in_channels
        self.branch = nn.Sequential(
            *(_conv_norm(in_channels, hidden, 1), nn.ReLU(inplace=True)),
            *(_conv_norm(hidden, hidden, 3, stride, hidden), nn.ReLU(inplace=True)),
            _conv_norm(hidden, out_channels, 1),
        )
        self.has_shortcut = stride == 1
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else _conv_norm(in_channels, out_channels, 1)
            if stride == 1
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)
        return y + self.shortcut(x) if self.has_shortcut and self.shortcut is not None else y


def _mobilenet_v2() -> nn.Module:
    blocks, in_channels = [], 32
    for expansion, out_channels, count, first_stride in MOBILE_STAGES:
        for stride in (first_stride, *[1] * (count - 1)):
            blocks.append(InvertedResidual(in_channels, out_channels, expansion, stride))
            in_channels = out_channels
    return nn.Sequential(
        *(_conv_norm(3, 32, 3), nn.ReLU(inplace=True)),
        *blocks,
        *(_conv_norm(in_channels, 1280, 1), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10)),
    )


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a 1x1 convolution as shortcut if the width changes."""

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride, bias=False) if in_channels != width else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.norm1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(functional.relu(self.norm2(self.conv1(y)), inplace=True))


def _wide_resnet(n: int, k: int) -> nn.Module:
    blocks, in_channels = [], 16
    for width, first_stride in ((16 * k, 1), (32 * k, 2), (64 * k, 2)):
        for stride in (first_stride, *[1] * (n - 1)):
            blocks.append(PreActBlock(in_channels, width, stride))
            in_channels = width
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, 10))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), *blocks, nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), *head
    )


#: Builders of the networks by their names in the zoo.
NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "lenet": _lenet,
    "mnist_cnn": lambda: _simple_cnn(1, 3136),
    "cifar_cnn": lambda: _simple_cnn(3, 4096),
    "resnet20": lambda: _resnet(3),
    "mobilenet_v2_cifar": _mobilenet_v2,
    "wrn_28_10": lambda: _wide_resnet(4, 10),
}
