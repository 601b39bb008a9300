"""The names for SE-ResNet in timm's `legacy_seresnet`."""

from .resnet import RULES as _RESNET

__all__ = ["RULES"]

RULES = (
    (r"^(conv1|bn1)\.", r"layer0.\1."),
    (r"^layers\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
    (r"\.se\.", ".se_module."),
    (r"^head\.", "last_linear."),
    *_RESNET,
)
