"""Torchvision's names for ResNet."""

__all__ = ["RULES"]

RULES = ((r"\.downsample\.conv\.", ".downsample.0."), (r"\.downsample\.norm\.", ".downsample.1."), (r"^head\.", "fc."))
