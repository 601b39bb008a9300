"""Torchvision's and timm's names for MobileNetV2 (neither has the variant for small images)."""

import re
from bisect import bisect_right

__all__ = ["RULES", "TIMM"]

RULES = (
    # The stem and the last convolution. These rules must come before the rule that replaces `trunk`.
    (r"^trunk\.(\d+)\.conv\.weight$", r"features.\1.0.weight"),
    (r"^trunk\.(\d+)\.norm\.", r"features.\1.1."),
    # Torchvision has separate entries for the projection (the second layer of the first block, the third of the other
    # blocks) and for its norm.
    (r"^trunk\.1\.layers\.1\.conv\.", "features.1.conv.1."),
    (r"^trunk\.1\.layers\.1\.norm\.", "features.1.conv.2."),
    (r"\.layers\.2\.conv\.", ".conv.2."),
    (r"\.layers\.2\.norm\.", ".conv.3."),
    (r"\.layers\.(\d)\.conv\.", r".conv.\1.0."),
    (r"\.layers\.(\d)\.norm\.", r".conv.\1.1."),
    (r"^trunk\.", "features."),
    (r"^head\.", "classifier.1."),
)

#: Timm's names for the parts of a block with an expansion, and for the parts of the first block, which has no
#: expansion.
_EXPANDED = {
    "0.conv": "conv_pw",
    "0.norm": "bn1",
    "1.conv": "conv_dw",
    "1.norm": "bn2",
    "2.conv": "conv_pwl",
    "2.norm": "bn3",
}
_FIRST = {"0.conv": "conv_dw", "0.norm": "bn1", "1.conv": "conv_pw", "1.norm": "bn2"}
#: The index in `trunk` of each stage's first block.
_STAGE_STARTS = (1, 2, 4, 7, 11, 14, 17)


def _timm_block(match: re.Match[str]) -> str:
    index = int(match["block"])
    stage = bisect_right(_STAGE_STARTS, index) - 1
    return f"blocks.{stage}.{index - _STAGE_STARTS[stage]}.{(_EXPANDED if stage else _FIRST)[match['part']]}."


TIMM = (
    (r"^trunk\.(?P<block>\d+)\.layers\.(?P<part>\d\.\w+)\.", _timm_block),
    (r"^trunk\.0\.conv\.", "conv_stem."),
    (r"^trunk\.0\.norm\.", "bn1."),
    (r"^trunk\.18\.conv\.", "conv_head."),
    (r"^trunk\.18\.norm\.", "bn2."),
    (r"^head\.", "classifier."),
)
