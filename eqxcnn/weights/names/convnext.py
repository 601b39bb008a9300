"""Torchvision's and timm's names for ConvNeXt; stages and downsampling layers alternate in torchvision's `features`."""

__all__ = ["AXES", "RULES", "TIMM"]

RULES = (
    (r"^stem\.", "features.0.0."),
    (r"^stem_norm\.", "features.0.1."),
    (r"^downsamples\.(\d+)\.norm\.", lambda match: f"features.{2 * int(match[1]) + 2}.0."),
    (r"^downsamples\.(\d+)\.conv\.", lambda match: f"features.{2 * int(match[1]) + 2}.1."),
    (r"^stages\.(\d+)\.", lambda match: f"features.{2 * int(match[1]) + 1}."),
    (r"\.conv\.", ".block.0."),
    (r"\.norm\.", ".block.2."),
    (r"\.fc1\.", ".block.3."),
    (r"\.fc2\.", ".block.5."),
    (r"^norm\.", "classifier.0."),
    (r"^head\.", "classifier.2."),
)
AXES = {r"\.layer_scale$": (0, 2)}
TIMM = (
    (r"^stem\.", "stem.0."),
    (r"^stem_norm\.", "stem.1."),
    (r"^stages\.(\d+)\.", r"stages.\1.blocks."),
    (r"^downsamples\.(\d+)\.norm\.", lambda match: f"stages.{int(match[1]) + 1}.downsample.0."),
    (r"^downsamples\.(\d+)\.conv\.", lambda match: f"stages.{int(match[1]) + 1}.downsample.1."),
    (r"\.conv\.", ".conv_dw."),
    (r"\.(fc\d)\.", r".mlp.\1."),
    (r"\.layer_scale$", ".gamma"),
    (r"^head\.", "head.fc."),
    (r"^norm\.", "head.norm."),
)
