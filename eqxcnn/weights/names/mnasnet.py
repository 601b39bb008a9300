"""What torchvision calls the tensors of `mnasnet`: it counts convolutions, norms and activations in one row."""

import re


def _in_a_row(found: re.Match[str]) -> str:
    """The place of the convolution or norm of the n-th `ConvNorm`, each of which takes three."""
    return f"layers.{3 * int(found[1]) + (found[2] == 'norm')}."


def _behind_the_stem(found: re.Match[str]) -> str:
    return f"layers.{8 + int(found[1])}."


RULES = (
    (r"^last\.conv\.", "layers.14."),
    (r"^last\.norm\.", "layers.15."),
    (r"(?:^stem|layers)\.(\d)\.(conv|norm)\.", _in_a_row),
    (r"^stages\.(\d)\.", _behind_the_stem),
    (r"^head\.", "classifier.1."),
)
