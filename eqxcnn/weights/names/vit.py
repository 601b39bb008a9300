"""Torchvision's and timm's names for vision transformers."""

__all__ = ["AXES", "LEGACY", "RULES", "TIMM"]

RULES = (
    (r"^patches\.", "conv_proj."),
    (r"^positions$", "encoder.pos_embedding"),
    (r"^norm\.", "encoder.ln."),
    (r"^head\.", "heads.head."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"\.norm(\d)\.", r".ln_\1."),
    (r"\.attention\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attention\.proj\.", ".self_attention.out_proj."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.3."),
)
#: In torch, class token and positions have a batch axis of length one; the class token also has a token axis.
AXES = {r"^class_token$": (2, 0), r"^positions$": (1, 0)}
#: The names of the MLP's weights before torchvision 0.13.
LEGACY = ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))
TIMM = (
    (r"^patches\.", "patch_embed.proj."),
    (r"^positions$", "pos_embed"),
    (r"^class_token$", "cls_token"),
    (r"\.attention\.", ".attn."),
    (r"\.(fc\d)\.", r".mlp.\1."),
)
