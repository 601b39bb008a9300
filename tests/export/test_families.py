"""All networks of the zoo in ONNX: their scores and, for one network per family, the transpositions that optimization
leaves.

The networks have random weights and few blocks. The images have the smallest side that the network accepts, but at
least 32 pixels.
"""

import sys
from functools import partial
from math import prod
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from eqxcnn import ImageClassifier, export, zoo
from eqxcnn.registry import build, family, variant
from eqxcnn.weights.tensors import from_tensors, tensor_slots

sys.path.append(str(Path(__file__).parents[1] / "models"))
from test_models import ONE_PER_FAMILY, shallow

#: Networks that compile slowly, or whose layers all occur in other networks.
OTHERS = (
    "alexnet", "all_cnn_a", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2_x0_5", "nin",
    "regnet_y_400mf", "resnet18_cifar", "resnet9", "scratch", "se_resnet20", "swin_t", "vgg11_bn_cifar", "wrn_16_4",
)  # fmt: skip
#: Limits of transpositions in families whose blocks need some: for shuffled channels, attention heads and windows. All
#: other networks have at most two: before the first convolution and before the first dense layer.
TRANSPOSITIONS = {"shufflenet_v2": 9, "swin": 30, "vit": 7}


#: Networks whose StableHLO programs CI tests: among them the operations that few networks have.
STABLEHLO = ("shufflenet_v2_x0_5", "vit_tiny_patch4_32")


def mark(name):
    return pytest.mark.exhaustive if name not in ONE_PER_FAMILY or name in OTHERS else pytest.mark.slow


def make_classifier(name):
    row = variant(name)
    size, channels = max(row.smallest, 32), row.input[2]
    make = partial(build, name, num_classes=7, image_size=size, **shallow(name))
    model, state = eqx.filter_eval_shape(make, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    # Faster than the initialization, which would have to be compiled.
    tensors = {each: random_tensor(rng, slot) for each, slot in tensor_slots(model, state).items()}
    model, state = from_tensors(model, state, tensors)
    moments = jnp.full(channels, 0.5), jnp.full(channels, 0.25)
    return ImageClassifier(eqx.nn.inference_mode(model), state, *moments, name, (size, size), tuple("abcdefg"))


def random_tensor(rng, slot):
    """Returns a positive vector, or a kernel that keeps the magnitude of its input.

    Vectors are positive because they may be variances.
    """
    if len(slot.shape) < 2:
        return rng.uniform(0.5, 1.5, slot.shape).astype(slot.dtype)
    return (rng.standard_normal(slot.shape, np.float32) / prod(slot.shape[:-1]) ** 0.5).astype(slot.dtype)


def count_after_optimization(path, operator):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    return sum(node.op_type == operator for node in nodes)


@pytest.mark.parametrize("name", [pytest.param(name, marks=mark(name)) for name in zoo.list_models()])
def test_scores_are_the_classifiers_with_few_transpositions(name, tmp_path, fast_compilation):
    classifier = make_classifier(name)
    path = tmp_path / "model.onnx"
    assert export.export_onnx(classifier, path) < 2e-5
    jax.clear_caches()
    if name in ONE_PER_FAMILY:
        assert count_after_optimization(path, "Transpose") <= TRANSPOSITIONS.get(family(name), 2)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in STABLEHLO else pytest.mark.exhaustive)
        for name in zoo.list_models()
    ],
)
def test_stablehlo_programs_have_the_same_scores(name, tmp_path, fast_compilation):
    assert export.export_stablehlo(make_classifier(name), tmp_path / "model.zip") < 2e-5
    jax.clear_caches()
