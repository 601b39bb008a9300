"""What torchvision calls the tensors of `mobilenet_v2`; the form for small images has names of its own."""

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
