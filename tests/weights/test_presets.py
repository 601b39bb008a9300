"""The preprocessing of published models, and ImageNet's classes."""

import pytest

from eqxcnn import zoo
from eqxcnn.registry import families
from eqxcnn.weights.imagenet import class_names, synsets
from eqxcnn.weights.presets import PRESETS


def test_exactly_the_twins_have_a_preset_at_their_own_size():
    rows = {row.torch_twin: row for _, row in families().values() if row.torch_twin}
    assert rows.keys() == PRESETS.keys()
    for twin, row in rows.items():
        assert (*PRESETS[twin].size, PRESETS[twin].channels) == row.input, twin


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", (224, 0.875, "bilinear", 0.485)),
        ("densenet121", (224, 0.875, "bilinear", 0.485)),
        ("mobilenet_v2", (224, 0.875, "bicubic", 0.485)),
        ("swin_t", (224, 0.9, "bicubic", 0.485)),
        ("vit_b_16", (224, 0.9, "bicubic", 0.5)),
        ("efficientnet_b3", (300, 300 / 320, "bicubic", 0.485)),
    ],
)
def test_a_card_has_the_preprocessing_of_its_published_weights_or_else_of_its_twin(name, expected, monkeypatch):
    monkeypatch.setattr(zoo, "_count_multiply_adds", lambda *_: 0)  # takes seconds
    preset = zoo.card.__wrapped__(name).preprocess
    assert preset.resize == "crop"
    assert (preset.size[0], preset.crop_fraction, preset.interpolation, preset.mean[0]) == expected


def test_a_card_without_weights_and_twin_has_no_preprocessing():
    assert zoo.card("nin").preprocess is None


def test_imagenet_has_a_thousand_classes_in_the_order_of_the_logits():
    assert len(set(class_names())) == len(set(synsets())) == 1000
    assert list(synsets()) == sorted(synsets())
    rows = dict(enumerate(zip(synsets(), class_names(), strict=True)))
    assert rows[0] == ("n01440764", "tench")
    assert rows[207] == ("n02099601", "golden retriever")
    assert rows[281] == ("n02123045", "tabby")
    assert rows[639] == ("n03710721", "maillot tank suit")
    assert rows[999] == ("n15075141", "toilet tissue")
