"""Torchvision's names for MnasNet: indices into sequences of convolutions, norms and activations."""

import re

__all__ = ["RULES"]


def _layer(match: re.Match[str]) -> str:
    """Returns torchvision's name of a convolution or norm; each `ConvNorm` is three layers in torchvision."""
    return f"layers.{3 * int(match[1]) + (match[2] == 'norm')}."


def _stage(match: re.Match[str]) -> str:
    """Returns torchvision's name of a stage; the stem has the indices 0 to 7."""
    return f"layers.{8 + int(match[1])}."


RULES = (
    (r"^last\.conv\.", "layers.14."),
    (r"^last\.norm\.", "layers.15."),
    (r"(?:^stem|layers)\.(\d)\.(conv|norm)\.", _layer),
    (r"^stages\.(\d)\.", _stage),
    (r"^head\.", "classifier.1."),
)
