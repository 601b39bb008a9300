"""SqueezeNet in torchvision: the head is one of a list with dropout, ReLU and pooling."""

RULES = ((r"^layers\.", "features."), (r"^head\.", "classifier.1."))
