"""Names of the small residual networks' tensors: torchvision's for the large ones."""

from .resnet import RULES

__all__ = ["RULES"]
