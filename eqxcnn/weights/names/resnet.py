"""Names of the residual networks' tensors in torchvision."""

RULES = ((r"\.downsample\.conv\.", ".downsample.0."), (r"\.downsample\.norm\.", ".downsample.1."), (r"^head\.", "fc."))
