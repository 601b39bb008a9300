"""The names for pre-activation ResNets in github.com/kuangliu/pytorch-cifar, whose models have no final `bn`."""

__all__ = ["RULES"]

RULES = (
    (r"^layers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"\.shortcut\.weight$", ".shortcut.0.weight"),
    (r"^head\.", "linear."),
)
