"""VGG in torchvision: one list of layers for the convolutions, one for the dense ones."""

RULES = (
    (r"^layers\.", "features."),
    (r"^hidden\.0\.", "classifier.0."),
    (r"^hidden\.1\.", "classifier.3."),
    (r"^head\.", "classifier.6."),
)
FLATTENED = {"hidden.0.weight": (7, 7)}
#: Timm has 7x7 and 1x1 convolutions in place of the hidden dense layers.
TIMM = (
    (r"^layers\.", "features."),
    (r"^hidden\.0\.", "pre_logits.fc1."),
    (r"^hidden\.1\.", "pre_logits.fc2."),
    (r"^head\.", "head.fc."),
)
