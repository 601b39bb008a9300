"""Torchvision's names for Inception v3: each branch has its own name."""

import re

__all__ = ["IGNORED", "RULES"]

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_LETTERS = {"5": "bcd", "6": "abcde", "7": "abc"}
#: The branches of each kind of module, with the suffixes of their convolutions.
_A = ("branch1x1", ("",)), ("branch5x5", ("_1", "_2")), ("branch3x3dbl", ("_1", "_2", "_3"))
_B = ("branch3x3", ("",)), ("branch3x3dbl", ("_1", "_2", "_3"))
_C = ("branch1x1", ("",)), ("branch7x7", ("_1", "_2", "_3")), ("branch7x7dbl", ("_1", "_2", "_3", "_4", "_5"))
_D = ("branch3x3", ("_1", "_2")), ("branch7x7x3", ("_1", "_2", "_3", "_4"))
_E = ("branch1x1", ("",)), ("branch3x3", ("_1", "_2a", "_2b")), ("branch3x3dbl", ("_1", "_2", "_3a", "_3b"))
_KINDS = {"5b": _A, "5c": _A, "5d": _A, "6a": _B, "6b": _C, "6c": _C, "6d": _C, "6e": _C, "7a": _D, "7b": _E, "7c": _E}


def _convolution(match: re.Match[str]) -> str:
    branch, suffixes = _KINDS[match[1]][int(match[2])]
    # `match[3]` is the position in the branch, and `match[4]` the position among parallel convolutions. Only the last
    # position of a branch has parallel convolutions, so the sum of both numbers is the index of the suffix.
    return f"Mixed_{match[1]}.{branch}{suffixes[int(match[3]) + int(match[4])]}."


RULES = (
    (r"^head\.", "fc."),
    (r"\.norm\.", ".bn."),
    (r"^stem\.(\d)\.", lambda match: f"{_STEM[int(match[1])]}."),
    (r"^mixed(\d)\.(\d)\.", lambda match: f"Mixed_{match[1]}{_LETTERS[match[1]][int(match[2])]}."),
    (r"^Mixed_(\d\w)\.branches\.(\d)\.(\d)\.(\d)\.", _convolution),
)

#: The auxiliary classifier, which is only used in training.
IGNORED = (r"^AuxLogits\.",)
