"""Torchvision's names for RegNet."""

__all__ = ["RULES"]

RULES = (
    (r"^stages\.(\d+)\.", lambda match: f"trunk_output.block{int(match[1]) + 1}.block{int(match[1]) + 1}-"),
    (r"\.(a|b|c|se)\.", r".f.\1."),
    (r"\.conv\.", ".0."),
    (r"\.norm\.", ".1."),
    (r"^head\.", "fc."),
)
