"""Torchvision's names for MobileNetV3."""

__all__ = ["RULES"]

RULES = (
    (r"^trunk\.", "features."),
    (r"\.layers\.", ".block."),
    (r"\.conv\.weight$", ".0.weight"),
    (r"\.norm\.", ".1."),
    (r"^fc1\.", "classifier.0."),
    (r"^head\.", "classifier.3."),
)
