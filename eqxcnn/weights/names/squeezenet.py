"""Torchvision's names for SqueezeNet, whose head is in a sequence with dropout, ReLU and pooling."""

__all__ = ["RULES"]

RULES = ((r"^layers\.", "features."), (r"^head\.", "classifier.1."))
