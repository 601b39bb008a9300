"""Torchvision's and timm's names for Swin transformers."""

__all__ = ["IGNORED", "RULES", "TIMM"]

RULES = (
    (r"^patches\.", "features.0.0."),
    (r"^patch_norm\.", "features.0.2."),
    # In torchvision's `features`, index 0 is the patch embedding. The odd indices are stages, and the even indices from
    # 2 on are patch merging.
    (r"^stages\.(\d+)\.", lambda match: f"features.{2 * int(match[1]) + 1}."),
    (r"^merges\.(\d+)\.", lambda match: f"features.{2 * int(match[1]) + 2}."),
    (r"\.attn\.attention\.", ".attn."),
    (r"\.offset_bias$", ".relative_position_bias_table"),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.3."),
)
#: Tensors that torch stores and that eqxcnn computes from the window size.
IGNORED = (r"\.relative_position_index$", r"\.attn_mask$")
TIMM = (
    (r"^patches\.", "patch_embed.proj."),
    (r"^patch_norm\.", "patch_embed.norm."),
    (r"^stages\.(\d+)\.", r"layers.\1.blocks."),
    # In timm, patch merging is the first layer of the stage after it.
    (r"^merges\.(\d+)\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),
    (r"\.attn\.attention\.", ".attn."),
    (r"\.offset_bias$", ".relative_position_bias_table"),
    (r"\.(fc\d)\.", r".mlp.\1."),
    (r"^head\.", "head.fc."),
)
