"""Torchvision's names for DenseNet; blocks, layers and their parts are numbered from one."""

import re

__all__ = ["LEGACY", "RULES"]


def _layer(match: re.Match[str]) -> str:
    block, layer, part = (int(number) + 1 for number in match.group(1, 2, 3))
    return f"features.denseblock{block}.denselayer{layer}.{match[4]}{part}."


RULES = (
    (r"^head\.", "classifier."),
    (r"^(conv0|norm0|norm5)\.", r"features.\1."),
    (r"^blocks\.(\d+)\.(\d+)\.(\d)\.(norm|conv)\.", _layer),
    (r"^transitions\.(\d+)\.", lambda match: f"features.transition{int(match[1]) + 1}."),
)

#: Torchvision's weight files still have the tensor names of an older version of torchvision.
LEGACY = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)
