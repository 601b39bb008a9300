"""Hyperparameters that some architectures take from their papers or reference code, and arguments that are refused."""

import inspect
from functools import cache, partial

import equinox as eqx
import jax
import numpy as np
import pytest
from jax.scipy.special import erf

from eqxcnn.errors import InputError
from eqxcnn.layers import BatchNorm, DropPath
from eqxcnn.models.airbench94 import Airbench94, Block
from eqxcnn.models.convnext import ConvNeXt
from eqxcnn.models.densenet import DenseNet
from eqxcnn.models.mlp import MLP
from eqxcnn.models.regnet import RegNet, stage_widths
from eqxcnn.models.shufflenet_v2 import ShuffleNetV2
from eqxcnn.models.swin import Swin
from eqxcnn.models.vit import ViT
from eqxcnn.registry import build, variant

KEY = jax.random.key(0)
FAST_KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster than the default generator


@cache
def build_abstract(name):
    return eqx.filter_eval_shape(build, name, key=KEY)[0]


def find(kind, model):
    """Returns all modules of a class in a model, in order."""
    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [
        ("airbench94", 1e-12, 0.4),
        ("resnet9", 1e-5, 0.1),
        ("mnasnet0_5", 1e-5, 0.0003),
        ("mobilenet_v3_small", 1e-3, 0.01),
        ("efficientnet_b0", 1e-5, 0.1),
        ("googlenet", 1e-3, 0.1),
        ("inception_v3", 1e-3, 0.1),
    ],
)
def test_batch_norms_have_the_eps_and_momentum_of_the_reference(name, eps, momentum):
    norms = {(norm.eps, round(norm.momentum, 9)) for norm in find(BatchNorm, build_abstract(name))}
    assert norms == {(eps, momentum)}


def read_defaults(name, words):
    """Returns the default values of a model's constructor arguments, for the arguments in `words`."""
    parameters = inspect.signature(variant(name).make).parameters
    return {word: parameters[word].default for word in words if word in parameters}


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("efficientnet_b4", {"eps": 1e-5, "momentum": 0.1}),
        ("efficientnet_b5", {"eps": 1e-3, "momentum": 0.01}),
        ("efficientnet_b7", {"eps": 1e-3, "momentum": 0.01}),
        ("efficientnet_v2_s", {"eps": 1e-3, "momentum": 0.1}),
    ],
)
def test_efficientnets_have_torchvisions_eps_and_momentum(name, defaults):
    assert read_defaults(name, ("eps", "momentum")) == defaults


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("alexnet", (0.5, None)),
        ("all_cnn_c", (0.5, None)),
        ("convnext_tiny", (0.0, 0.1)),
        ("convnext_small", (0.0, 0.4)),
        ("convnext_base", (0.0, 0.5)),
        ("convnext_large", (0.0, 0.5)),
        ("densenet121", (0, None)),
        ("efficientnet_b0", (0.2, 0.2)),
        ("efficientnet_b4", (0.4, 0.2)),
        ("efficientnet_b7", (0.5, 0.2)),
        ("efficientnet_v2_l", (0.4, 0.2)),
        ("googlenet", (0.2, None)),
        ("inception_v3", (0.5, None)),
        ("mnasnet1_0", (0.2, None)),
        ("mobilenet_v2", (0.2, None)),
        ("mobilenet_v2_cifar", (0.0, None)),
        ("mobilenet_v3_large", (0.2, None)),
        ("nin", (0.5, None)),
        ("resnet50", (0.0, 0.0)),
        ("squeezenet1_1", (0.5, None)),
        ("swin_t", (None, 0.2)),
        ("swin_s", (None, 0.3)),
        ("swin_b", (None, 0.5)),
        ("vgg16", (0.5, None)),
        ("vgg16_bn_cifar", (0.0, None)),
        ("vit_b_16", (0.0, 0.0)),
    ],
)
def test_default_drop_rates(name, rates):
    named = dict(zip(("dropout_rate", "drop_path_rate"), rates, strict=True))
    assert read_defaults(name, named) == {word: rate for word, rate in named.items() if rate is not None}


def test_all_cnn_drops_a_fifth_of_the_image():
    assert read_defaults("all_cnn_c", ("input_dropout_rate",)) == {"input_dropout_rate": 0.2}


def drop_path_rates(model):
    return [round(drop_path.rate, 9) for drop_path in find(DropPath, model)]


@pytest.mark.parametrize(
    "make",
    [
        lambda key: ViT(dim=4, depth=3, heads=1, patch=16, image_size=(16, 16), drop_path_rate=0.4, key=key),
        lambda key: Swin(dim=4, depths=(2, 1), heads=(1, 1), drop_path_rate=0.4, key=key),
        lambda key: ConvNeXt(widths=(4, 8), depths=(1, 2), drop_path_rate=0.4, key=key),
    ],
)
def test_drop_path_rates_increase_linearly_to_the_last_block(make):
    assert drop_path_rates(eqx.filter_eval_shape(make, KEY)) == [0, 0.2, 0.4]


def test_efficientnet_drops_block_i_of_16_at_a_rate_of_i_sixteenths():
    rates = drop_path_rates(build_abstract("efficientnet_b0"))
    assert rates == [round(0.2 * index / 16, 9) for index in range(16)]


def test_only_max_pooled_networks_scale_their_scores():
    assert (build_abstract("airbench94").score_scale, build_abstract("resnet9").score_scale) == (1 / 9, 0.125)
    bare = eqx.filter_eval_shape(Airbench94, num_classes=0, key=KEY)
    assert bare.score_scale == 1


def test_airbench_blocks_start_by_copying_channels():
    weight = np.asarray(Block(8, 4, True, key=FAST_KEY).conv1.weight)  # kh kw 8 4
    identity = np.zeros((3, 3, 8, 4))
    identity[1, 1, range(4), range(4)] = 1
    np.testing.assert_array_equal(weight, identity)
    assert np.unique(np.asarray(Block(8, 4, False, key=FAST_KEY).conv1.weight)).size == 3 * 3 * 8 * 4


@pytest.mark.parametrize(
    ("activation", "activate"),
    [("gelu", lambda x: x * (1 + erf(x / np.sqrt(2))) / 2), ("silu", lambda x: x / (1 + np.exp(-x)))],
)
def test_airbench_activations(activation, activate):
    make = partial(Airbench94, widths=(4, 4, 4), image_size=(9, 9), activation=activation)
    model, state = eqx.nn.inference_mode(eqx.nn.make_with_state(make)(key=FAST_KEY))
    image = jax.random.normal(FAST_KEY, (9, 9, 3))
    # Before training, the running statistics of BatchNorm are 0 and 1.
    x = activate(model.whiten(image))
    for block in model.blocks:
        x = activate(block.conv2(activate(block.pool(block.conv1(x)))))
    np.testing.assert_allclose(model.features(image, state, key=None)[0][-1], x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(image, state, key=None)[0], model.head(x.max((0, 1))) / 9, rtol=1e-4, atol=1e-5)


def test_airbench_scales_the_head_and_refuses_other_activations():
    make = partial(Airbench94, widths=(4, 4, 4), image_size=(9, 9), key=FAST_KEY)
    plain, scaled = make().head.weight, make(head_std=2).head.weight
    np.testing.assert_allclose(scaled, 2 * plain / plain.std(), rtol=1e-5)
    with pytest.raises(InputError, match=r"`activation` .='relu'. must be one of gelu, silu"):
        make(activation="relu")


def test_regnet_stage_widths():
    # Blocks of 8, 12 and 16: 12 is 8 * 2 ** 0.58, and 0.58 rounds to 1.
    assert stage_widths(3, 8, 4, 2) == {8: 1, 16: 2}
    # Depths of RegNetX-400MF: Radosavovic et al. 2020, figure 16.
    assert list(stage_widths(22, 24, 24.48, 2.54).values()) == [1, 2, 7, 12]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(widths=(), key=KEY), r"`widths` \(=\(\)\) must have"),
        (lambda: ConvNeXt(widths=(8, 8), depths=(1,), key=KEY), r"`widths` \(=\(8, 8\)\) and `depths` \(=\(1,\)\)"),
        (lambda: ConvNeXt(widths=(8,), depths=(0,), key=KEY), r"one number of at least 1 per stage"),
        (lambda: ConvNeXt(widths=(), depths=(), key=KEY), r"`widths` \(=\(\)\)"),
        (lambda: DenseNet((), 4, 8, key=KEY), r"`layers` \(=\(\)\) must have at least one block"),
        (lambda: DenseNet((2, 0), 4, 8, key=KEY), r"`layers` \(=\(2, 0\)\)"),
        (lambda: DenseNet((2,), 4, 8, compression=0, key=KEY), r"`compression` \(=0\) must be greater than 0"),
        (lambda: DenseNet((2,), 4, 8, compression=1.5, key=KEY), r"`compression` \(=1.5\)"),
        (lambda: stage_widths(2, 12, 4, 2), r"`w_0` \(=12\) a multiple of 8"),
        (lambda: RegNet(-3, 8, 4, 2, 8, key=KEY), r"`depth` \(=-3\) must be at least 1"),
        (lambda: stage_widths(2, 8, -1, 2), r"`w_a` \(=-1\) at least 0"),
        (lambda: stage_widths(2, 8, 4, 1), r"`w_m` \(=1\) above 1"),
        (lambda: ShuffleNetV2(widths=(4, 8), depths=(1,), key=KEY), r"`widths` \(=\(4, 8\)\) must have"),
        (lambda: ShuffleNetV2(widths=(4, 7, 8), depths=(1,), key=KEY), r"one even number per stage"),
        (lambda: ShuffleNetV2(widths=(4, 8, 8), depths=(0,), key=KEY), r"`depths` \(=\(0,\)\) must have"),
    ],
)
def test_impossible_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
