"""Torchvision's names for AlexNet: indices into sequences of layers that include ReLU, pooling and dropout."""

__all__ = ["FLATTENED", "RULES"]

RULES = (
    (r"^conv1\.", "features.0."),
    (r"^conv2\.", "features.3."),
    (r"^conv3\.", "features.6."),
    (r"^conv4\.", "features.8."),
    (r"^conv5\.", "features.10."),
    (r"^fc1\.", "classifier.1."),
    (r"^fc2\.", "classifier.4."),
    (r"^head\.", "classifier.6."),
)
FLATTENED = {"fc1.weight": (6, 6)}
