"""The names for the CIFAR ResNets: the same as for torchvision's ResNet."""

from .resnet import RULES

__all__ = ["RULES"]
