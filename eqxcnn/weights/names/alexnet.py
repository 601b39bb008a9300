"""AlexNet in torchvision: layers go by their place among convolutions, ReLUs, poolings and dropouts."""

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
