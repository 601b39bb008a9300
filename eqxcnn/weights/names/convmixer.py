"""Timm's names for ConvMixer: a layer is named by its index in its sequence, and a residual branch by `fn`."""

__all__ = ["RULES"]

RULES = (
    (r"^stem\.", "stem.0."),
    (r"^stem_norm\.", "stem.2."),
    (r"\.depthwise\.", ".0.fn.0."),
    (r"\.norm1\.", ".0.fn.2."),
    (r"\.pointwise\.", ".1."),
    (r"\.norm2\.", ".3."),
)
