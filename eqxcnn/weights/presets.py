"""The preprocessing that torchvision and timm publish with the weights of their ImageNet models."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from ..images import Preprocess

__all__ = ["HALF", "IMAGENET", "PRESETS"]

#: The most common preprocessing: the shorter side is resized to 256 pixels, and the center is kept.
IMAGENET = Preprocess(
    (224, 224), resize="crop", crop_fraction=224 / 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
#: The mean, and also the standard deviation, for models that take pixels from -1 to 1.
HALF = (0.5, 0.5, 0.5)

#: In each row: the side of the crop, the length of the resized image's shorter side, the interpolation, and the models.
_ROWS = (
    (
        224, 256, "bilinear",
        "alexnet densenet121 densenet161 densenet169 densenet201 googlenet mnasnet0_5 mnasnet1_0 mobilenet_v2 "
        "mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf "
        "regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf "
        "regnet_y_8gf regnet_y_16gf regnet_y_32gf resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d "
        "resnext101_32x8d shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn vgg13 "
        "vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_l_32 wide_resnet50_2 wide_resnet101_2 "
        "timm/legacy_seresnet34 timm/legacy_seresnet50 timm/legacy_seresnet101 timm/legacy_seresnet152",
    ),
    (
        224, 232, "bilinear",
        "convnext_base convnext_large mnasnet0_75 mnasnet1_3 resnext101_64x4d shufflenet_v2_x1_5 shufflenet_v2_x2_0",
    ),
    (224, 230, "bilinear", "convnext_small"),
    (224, 236, "bilinear", "convnext_tiny"),
    (224, 242, "bilinear", "vit_l_16"),
    (224, 224, "bicubic", "regnet_y_128gf vit_h_14"),
    (224, 232, "bicubic", "swin_t"),
    (224, 233, "bicubic", "timm/convmixer_1024_20_ks9_p14 timm/convmixer_1536_20 timm/convmixer_768_32"),
    (224, 238, "bicubic", "swin_b"),
    (224, 246, "bicubic", "swin_s"),
    (224, 256, "bicubic", "efficientnet_b0 timm/legacy_seresnet18"),
    (240, 256, "bicubic", "efficientnet_b1"),
    (288, 288, "bicubic", "efficientnet_b2"),
    (299, 342, "bilinear", "inception_v3"),
    (300, 320, "bicubic", "efficientnet_b3"),
    (380, 384, "bicubic", "efficientnet_b4"),
    (384, 384, "bilinear", "efficientnet_v2_s"),
    (456, 456, "bicubic", "efficientnet_b5"),
    (480, 480, "bicubic", "efficientnet_v2_l"),
    (480, 480, "bilinear", "efficientnet_v2_m"),
    (528, 528, "bicubic", "efficientnet_b6"),
    (600, 600, "bicubic", "efficientnet_b7"),
)  # fmt: skip


def _presets() -> Iterator[tuple[str, Preprocess]]:
    for side, resized, interpolation, names in _ROWS:
        preset = replace(IMAGENET, size=(side, side), crop_fraction=side / resized, interpolation=interpolation)
        for name in names.split():
            yield name, replace(preset, mean=HALF, std=HALF) if name == "efficientnet_v2_l" else preset


#: The preprocessing by torchvision's model name, or by `timm/NAME`. For torchvision's models, it comes from the weights
#: `IMAGENET1K_V1`. `regnet_y_128gf` and `vit_h_14` lack these weights and use `IMAGENET1K_SWAG_LINEAR_V1` instead.
PRESETS: Mapping[str, Preprocess] = MappingProxyType(dict(_presets()))
