"""Torchvision's and timm's names for VGG: torchvision has one sequence of convolutions and one of dense layers."""

__all__ = ["FLATTENED", "RULES", "TIMM"]

RULES = (
    (r"^layers\.", "features."),
    (r"^hidden\.0\.", "classifier.0."),
    (r"^hidden\.1\.", "classifier.3."),
    (r"^head\.", "classifier.6."),
)
FLATTENED = {"hidden.0.weight": (7, 7)}
#: Timm has a 7x7 and a 1x1 convolution instead of the hidden dense layers.
TIMM = (
    (r"^layers\.", "features."),
    (r"^hidden\.0\.", "pre_logits.fc1."),
    (r"^hidden\.1\.", "pre_logits.fc2."),
    (r"^head\.", "head.fc."),
)
