"""Torchvision's names for EfficientNet and EfficientNetV2, and timm's for EfficientNet."""

import re

__all__ = ["RULES", "TIMM"]

RULES = (
    (r"^trunk\.", "features."),
    (r"\.layers\.", ".block."),
    (r"\.conv\.weight$", ".0.weight"),
    (r"\.norm\.", ".1."),
    (r"^head\.", "classifier.1."),
)

#: Timm's names for the parts of a block with an expansion, and for the parts of the first stage's blocks, which have no
#: expansion.
_EXPANDED = {
    "0.conv": "conv_pw",
    "0.norm": "bn1",
    "1.conv": "conv_dw",
    "1.norm": "bn2",
    "2.fc1": "se.conv_reduce",
    "2.fc2": "se.conv_expand",
    "3.conv": "conv_pwl",
    "3.norm": "bn3",
}
_FIRST = {
    "0.conv": "conv_dw",
    "0.norm": "bn1",
    "1.fc1": "se.conv_reduce",
    "1.fc2": "se.conv_expand",
    "2.conv": "conv_pw",
    "2.norm": "bn2",
}


def _timm_block(match: re.Match[str]) -> str:
    stage = int(match["stage"]) - 1
    return f"blocks.{stage}.{match['block']}.{(_EXPANDED if stage else _FIRST)[match['part']]}."


#: Timm's names for EfficientNet-B0 to B7; there is no table for EfficientNetV2.
TIMM = (
    (r"^trunk\.(?P<stage>\d+)\.(?P<block>\d+)\.layers\.(?P<part>\d\.\w+)\.", _timm_block),
    (r"^trunk\.0\.conv\.", "conv_stem."),
    (r"^trunk\.0\.norm\.", "bn1."),
    (r"^trunk\.8\.conv\.", "conv_head."),
    (r"^trunk\.8\.norm\.", "bn2."),
    (r"^head\.", "classifier."),
)
