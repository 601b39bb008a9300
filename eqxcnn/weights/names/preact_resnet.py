"""Names of the pre-activated networks' tensors in github.com/kuangliu/pytorch-cifar, which lacks the last `bn`."""

RULES = (
    (r"^layers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"\.shortcut\.weight$", ".shortcut.0.weight"),
    (r"^head\.", "linear."),
)
