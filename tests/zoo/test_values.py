"""No value of a constructor's argument builds a broken model, fills the memory, or fails without an `InputError`."""

import dataclasses
import inspect
import math

import equinox as eqx
import jax
import pytest

from eqxcnn import registry, zoo
from eqxcnn.errors import InputError
from eqxcnn.registry import families, has_type

NAN, INF = math.nan, math.inf
#: One variant of each family.
VARIANTS = {family: name for name, (family, _) in sorted(families().items(), reverse=True)}

BAD_NUMBERS = [None, "x", True, -1, NAN, INF, -INF, 10**9, 10**400, 10**5000, (1,)]
BAD_TUPLES = [
    None, 1, [1], (0,), (-1, 1), (1, 1.5, 1), (1,) * 65, (10**9,) * 4, (10**400,), (None,), (True,) * 4, (NAN,) * 3,
]  # fmt: skip


def bad_values(default):
    if isinstance(default, bool):
        return [None, 1, "yes"]
    if isinstance(default, int | float):
        return BAD_NUMBERS
    return BAD_TUPLES if isinstance(default, tuple) else [None, 1, "relu"]


def build_abstract(name, **arguments):
    return eqx.filter_eval_shape(zoo.create_model, name, key=jax.random.key(0), **arguments)


@pytest.mark.parametrize("name", VARIANTS.values(), ids=VARIANTS.keys())
def test_bad_values_of_every_argument_are_refused_by_name(name):
    parameters = inspect.signature(families()[name][1].make).parameters
    for keyword in parameters.keys() - {"num_classes", "in_channels", "image_size", "key"}:
        for value in bad_values(parameters[keyword].default):
            with pytest.raises(InputError, match=f"`{keyword}` ") as caught:
                build_abstract(name, **{keyword: value})
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("mnist_cnn", {"hidden": 0}, r"`hidden` \(=0\) of `mnist_cnn` must be above 0"),
        ("mlp", {"widths": (0,)}, r"`widths` \(=\(0,\)\) of `mlp` must be above 0"),
        ("airbench94", {"widths": ()}, r"`widths` \(=\(\)\) of `airbench94` must have at least one entry"),
        ("vit_b_16", {"dropout_rate": 1}, r"`dropout_rate` \(=1\) of `vit_b_16` must be at least 0 and below 1"),
        ("regnet_y_400mf", {"se_ratio": NAN}, r"`se_ratio` \(=nan\) of `regnet_y_400mf` must be finite"),
        ("densenet121", {"bottleneck": -1}, r"`bottleneck` \(=-1\) of `densenet121` must be at least 0"),
        ("vit_b_16", {"depth": 401}, r"`depth` \(=401\) of `vit_b_16` must be at most 400 in total"),
        ("preact_resnet18", {"depths": (1,) * 9}, "`depths` .* must have at most 8 entries"),
        ("preact_resnet18", {"depths": (1, 1)}, r"`depths` \(=\(1, 1\)\) and `widths` .* must have the same length"),
        ("swin_t", {"heads": (3,)}, r"must have the same length"),
        ("swin_t", {"heads": (3, 6, 12, 25)}, r"`heads` \(=25\)"),
        ("swin_t", {"window": 65}, r"`window` \(=65\) must be at most 64"),
        ("vit_b_16", {"heads": 5}, r"`dim` \(=768\) must be a positive multiple of `heads` \(=5\)"),
        ("convmixer_256_8", {"kernel_size": 65_537}, "must be at most 65536"),
        ("mnist_cnn", {"hidden": 60_000, "widths": (60_000, 60_000)}, r"has [\d,]+ parameters, more than the limit"),
        ("lenet", {"num_classes": 10**12}, r"`num_classes` \(=1000000000000\) must be from 0 \(features\) to 1000000"),
        ("lenet", {"num_classes": 10**5000}, r"`num_classes` \(=a number of more than 30 digits\)"),
        ("lenet", {"in_channels": 10**9}, r"`in_channels` \(=1000000000\) must be from 1 to 4096"),
        ("lenet", {"image_size": 10**6}, r"`image_size` \(=1000000x1000000\) is too large: .* 4096x4096"),
        ("lenet", {"image_size": (28, -5)}, r"`image_size` \(=28x-5\) is too small"),
        ("mlp", {"image_size": 4096, "widths": (1000,)}, r"`mlp` with these settings has [\d,]+ parameters"),
    ],
)
def test_the_sentence_names_the_value_and_the_rule(name, given, message):
    with pytest.raises(InputError, match=message):
        build_abstract(name, **given)


def test_a_model_beyond_the_limit_is_refused_before_it_is_allocated(monkeypatch):
    row, is_abstract = families()["lenet"][1], []

    def make(*, key, **arguments):
        model = row.make(key=key, **arguments)
        is_abstract.append("Tracer" in repr(jax.tree.leaves(model)[0]))
        return model

    monkeypatch.setattr(registry, "find", lambda name: ("lenet", dataclasses.replace(row, make=make)))
    monkeypatch.setattr(registry, "MAX_PARAMETERS", 61_705)
    with pytest.raises(InputError, match=r"`lenet` with these settings has 61,706 parameters, .* limit of 61,705"):
        zoo.create_model("lenet", key=jax.random.key(0))
    assert is_abstract == [True]


def test_values_at_the_limits_are_accepted():
    assert build_abstract("vgg11", hidden=(), image_size=32)
    assert build_abstract("densenet_40_12", bottleneck=0, layers=(1, 1, 1), dropout_rate=0)
    assert build_abstract("mlp", widths=(1,) * 64)
    assert build_abstract("mnasnet0_5", width=2)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (["a"] * 500 + [1], list[str], False),
        (["a"] * 500, list[str], True),
        ([0, 0.5], list[float], True),
        ([0, True], list[float], False),
        (("a", "b"), tuple[str, ...], True),
        ((1, 2, 3), tuple[int, int], False),
        ({"a": 1, 2: 1}, dict[str, int], False),
        (True, int, False),
        (10**400, float | int, True),
    ],
)
def test_every_element_has_its_type_checked(value, hint, expected):
    assert all(has_type(value, hint) is expected for _ in range(20))


def test_the_fields_of_a_named_tuple_are_checked():
    name = VARIANTS["mobilenet_v3"]
    rows = inspect.signature(families()[name][1].make).parameters["rows"].default
    with pytest.raises(InputError, match=r"`rows` .* must be of type"):
        build_abstract(name, rows=(rows[0]._replace(hidden="64"), *rows[1:]))
    with pytest.raises(InputError, match=r"`rows` .* must be above 0"):
        build_abstract(name, rows=(rows[0]._replace(hidden=0), *rows[1:]))
