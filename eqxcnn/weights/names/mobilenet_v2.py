"""What torchvision calls the tensors of `mobilenet_v2`; the form for small images has names of its own."""

import re
from bisect import bisect_right

RULES = (
    # Stem and last convolution, before the blocks' own `conv` takes the same place in the name.
    (r"^trunk\.(\d+)\.conv\.weight$", r"features.\1.0.weight"),
    (r"^trunk\.(\d+)\.norm\.", r"features.\1.1."),
    # The convolution that narrows is not wrapped with its norm: the second of the first block, else the third.
    (r"^trunk\.1\.layers\.1\.conv\.", "features.1.conv.1."),
    (r"^trunk\.1\.layers\.1\.norm\.", "features.1.conv.2."),
    (r"\.layers\.2\.conv\.", ".conv.2."),
    (r"\.layers\.2\.norm\.", ".conv.3."),
    (r"\.layers\.(\d)\.conv\.", r".conv.\1.0."),
    (r"\.layers\.(\d)\.norm\.", r".conv.\1.1."),
    (r"^trunk\.", "features."),
    (r"^head\.", "classifier.1."),
)

#: What timm calls the parts of a block that widens, and of the first one, which does not.
_WIDENING = {
    "0.conv": "conv_pw",
    "0.norm": "bn1",
    "1.conv": "conv_dw",
    "1.norm": "bn2",
    "2.conv": "conv_pwl",
    "2.norm": "bn3",
}
_FIRST = {"0.conv": "conv_dw", "0.norm": "bn1", "1.conv": "conv_pw", "1.norm": "bn2"}
#: The number, in one row, of the block that opens each stage.
_OPENING = (1, 2, 4, 7, 11, 14, 17)


def _timm_block(match: re.Match[str]) -> str:
    at = int(match["block"])
    stage = bisect_right(_OPENING, at) - 1
    return f"blocks.{stage}.{at - _OPENING[stage]}.{(_WIDENING if stage else _FIRST)[match['part']]}."


TIMM = (
    (r"^trunk\.(?P<block>\d+)\.layers\.(?P<part>\d\.\w+)\.", _timm_block),
    (r"^trunk\.0\.conv\.", "conv_stem."),
    (r"^trunk\.0\.norm\.", "bn1."),
    (r"^trunk\.18\.conv\.", "conv_head."),
    (r"^trunk\.18\.norm\.", "bn2."),
    (r"^head\.", "classifier."),
)
