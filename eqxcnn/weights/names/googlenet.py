"""Torchvision's names for GoogLeNet; modules are numbered as in the paper: 3a, 3b, 4a and so on."""

__all__ = ["IGNORED", "RULES"]

RULES = (
    (r"^head\.", "fc."),
    (r"\.norm\.", ".bn."),
    (r"^(inception\d)\.(\d)\.", lambda match: f"{match[1]}{'abcde'[int(match[2])]}."),
)

#: The auxiliary classifiers, which are only used in training.
IGNORED = (r"^aux[12]\.",)
