"""Torchvision's names for ShuffleNet V2."""

__all__ = ["RULES"]

RULES = (
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
    (r"^stages\.(\d+)", lambda match: f"stage{int(match[1]) + 2}"),
    # In torchvision, a branch is one sequence of convolutions and norms, with a ReLU after some of the norms.
    (r"branch1\.(\d)\.(\d)", lambda match: f"branch1.{(0, 2)[int(match[1])] + int(match[2])}"),
    (r"branch2\.(\d)\.(\d)", lambda match: f"branch2.{(0, 3, 5)[int(match[1])] + int(match[2])}"),
    (r"^head\.", "fc."),
)
