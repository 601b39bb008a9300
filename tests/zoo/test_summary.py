"""The layers of a model and their costs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from eqxcnn import registry, zoo
from eqxcnn.cost import count_multiply_adds, count_multiply_adds_by_scope
from eqxcnn.errors import InputError
from eqxcnn.layers import AdaptiveAvgPool, BatchNorm, Conv
from eqxcnn.types import Variant
from eqxcnn.zoo import LayerRow


def totals(rows):
    return sum(row.params for row in rows), sum(row.multiply_adds for row in rows)


def test_lenet_by_hand():
    assert zoo.summary("lenet") == [
        LayerRow("conv1", "Conv", (28, 28, 6), 1, 156, 28 * 28 * 6 * 25),
        LayerRow("pool", "MaxPool", (5, 5, 16), 2, 0, 0),
        LayerRow("conv2", "Conv", (10, 10, 16), 1, 2416, 10 * 10 * 16 * 150),
        LayerRow("fc1", "Linear", (120,), 1, 48120, 400 * 120),
        LayerRow("fc2", "Linear", (84,), 1, 10164, 120 * 84),
        LayerRow("head", "Linear", (10,), 1, 850, 84 * 10),
    ]


def test_image_size_channels_and_classes_can_be_given():
    rows = {row.path: row for row in zoo.summary("lenet", image_size=(64, 48), in_channels=3, num_classes=0)}
    assert rows["conv1"] == LayerRow("conv1", "Conv", (64, 48, 6), 1, 6 * (75 + 1), 64 * 48 * 6 * 75)
    assert rows["fc1"].params == 14 * 10 * 16 * 120 + 120
    assert rows["head"] == LayerRow("head", "Identity", (84,), 1, 0, 0)


def test_invalid_arguments_are_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"no model named `lenett`; did you mean `lenet`"):
        zoo.summary("lenett")
    with pytest.raises(InputError, match=r"too small for `lenet`: the smallest size is 12x12"):
        zoo.summary("lenet", image_size=11)
    with pytest.raises(InputError, match=r"`mnist_cnn` has no argument `hiden`"):
        zoo.summary("mnist_cnn", hiden=3)


class Mixer(eqx.Module):
    """A block with its own array and matrix product, and a layer that is vmapped over the pixels."""

    scale: jax.Array
    dense: eqx.nn.Linear

    def __call__(self, image):
        rows = jax.vmap(jax.vmap(self.dense))(image)
        return jnp.einsum("hwc,hvc->wv", rows * self.scale, rows)


class Odd(eqx.Module):
    """A model with everything that is hard to count: layers that are shared, unused, vmapped, or inside jit."""

    table: jax.Array
    conv: Conv
    norm: BatchNorm
    mixers: dict[str, Mixer]
    pool: AdaptiveAvgPool
    unused: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, num_classes, in_channels, image_size, *, key):
        self.table = jnp.zeros((7, 3))
        self.conv = Conv(in_channels, in_channels, 3, key=key)
        self.norm = BatchNorm(in_channels)
        self.mixers = {"first": Mixer(jnp.ones(5), eqx.nn.Linear(in_channels, 5, key=key))}
        self.pool = AdaptiveAvgPool(2)
        self.unused = eqx.nn.Linear(2, 3, key=key)
        self.head = eqx.nn.Linear(4, num_classes, key=key)

    def features(self, image, state, *, key):
        return (), state

    def __call__(self, image, state, *, key):
        x = eqx.filter_checkpoint(self.conv)(jax.jit(lambda x: self.conv(x))(image))
        x, state = self.norm(x, state)
        x = self.mixers["first"](x)
        return self.head(self.pool(x[:, :, None]).ravel()) + (self.table @ jnp.ones(3))[0], state


@pytest.fixture
def odd(monkeypatch):
    row = Variant(Odd, (6, 4, 3), num_classes=2, params=0, source="https://example.org", task="mnist")
    monkeypatch.setattr(registry, "find", lambda name: ("lenet", row))


@pytest.mark.usefixtures("odd")
def test_every_array_and_product_belongs_to_one_row():
    rows = zoo.summary("odd")
    assert rows == [
        LayerRow("", "Odd", (2,), 1, 21, 21),
        # Called twice, inside `jax.jit` and inside a checkpoint, but its parameters count once.
        LayerRow("conv", "Conv", (6, 4, 3), 2, 84, 2 * 6 * 4 * 3 * 27),
        LayerRow("norm", "BatchNorm", (6, 4, 3), 1, 6, 0),
        LayerRow("mixers.first", "Mixer", (4, 4), 1, 5, 6 * 4 * 4 * 5),
        LayerRow("mixers.first.dense", "Linear", (6, 4, 5), 1, 20, 6 * 4 * 15),
        # Pooled along the rows first, then along the columns.
        LayerRow("pool", "AdaptiveAvgPool", (2, 2, 1), 1, 0, rows[5].multiply_adds),
        LayerRow("head", "Linear", (2,), 1, 10, 8),
        LayerRow("unused", "Linear", None, 0, 9, 0),
    ]
    assert rows[5].multiply_adds in (2 * 4 * 4 + 2 * 4 * 2, 2 * 4 * 4 + 2 * 2 * 4)
    model, _ = eqx.filter_eval_shape(zoo.create_model, "odd", key=jax.random.key(0))
    assert type(model.conv) is Conv

    def logits(key, image):
        model, state = zoo.create_model("odd", key=key)
        return eqx.nn.inference_mode(model)(image, state, key=None)[0]

    cost = count_multiply_adds(logits, jax.random.key(0), jax.ShapeDtypeStruct((6, 4, 3), jnp.float32))
    assert totals(rows) == (zoo.count_parameters(model), cost)


_LARGEST_FIRST = sorted(registry.families().items(), key=lambda entry: -entry[1][1].params)
#: The smallest variant of each family.
SMALLEST = {family: name for name, (family, _) in _LARGEST_FIRST}


@pytest.mark.parametrize("name", ["lenet", "scratch", "mlp", "resnet18_cifar", "vit_tiny_patch4_32"])
def test_the_rows_add_up_to_the_card(name):
    assert totals(zoo.summary(name)) == (zoo.card(name).params, zoo.card(name).multiply_adds)


#: Families of many layers, of kinds that other families have too.
_DEEP = {"densenet", "efficientnet", "googlenet", "inception_v3", "mnasnet", "mobilenet_v2", "regnet"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] if family in _DEEP else [])
        for family, name in SMALLEST.items()
    ],
)
def test_the_rows_of_every_family_add_up_to_the_card(name):
    assert totals(zoo.summary(name)) == (zoo.card(name).params, zoo.card(name).multiply_adds)


#: Billions of multiply-adds, from `_ops` in the weights' metadata of torchvision 0.28 (`torchvision/models/*.py`).
PUBLISHED = {
    "alexnet": 0.714,
    "inception_v3": 5.713,
    "mobilenet_v2": 0.301,
    "resnet50": 4.089,
    "swin_t": 4.491,
    "vgg16": 15.470,
    "vit_b_16": 17.564,
}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_multiply_adds_agree_with_torchvision(name, billions):
    assert abs(zoo.card(name).multiply_adds / 1e9 - billions) < 0.001


def test_count_parameters_of_real_and_abstract_models():
    abstract, _ = eqx.filter_eval_shape(zoo.create_model, "lenet", key=jax.random.key(0))
    assert zoo.count_parameters(abstract) == 61_706
    assert zoo.count_parameters((eqx.nn.Linear(2, 3, key=jax.random.key(0)), None, 3, "text")) == 9


def test_multiply_adds_by_scope():
    def function(matrix, rows):
        with jax.named_scope("outer"):
            doubled = jax.jit(lambda a: a @ a)(matrix)
            with jax.named_scope("inner"):
                return jax.vmap(lambda row: doubled @ row)(rows)

    costs = count_multiply_adds_by_scope(function, jnp.ones((3, 3)), jnp.ones((5, 3)))
    outer, inner = (scope for scope, cost in costs.items() if cost)
    assert (outer, costs[outer], costs[inner]) == ("outer", 3 * 3 * 3, 5 * 3 * 3)
    assert inner.startswith("outer/inner")
