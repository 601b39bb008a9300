"""Tests of `forward_features`, which returns the feature maps of every stage, and of `forward` without a state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn import ChannelsFirst, forward, forward_features, registry, zoo
from eqxcnn.errors import InputError

#: One model of each family.
FAMILIES = {family: name for name, (family, _) in sorted(registry.families().items(), reverse=True)}


def make_lenet(**arguments):
    model, state = zoo.create_model("lenet", key=jax.random.key(0), **arguments)
    return model, state, jax.random.normal(jax.random.key(1), (3, 28, 28, 1))


@pytest.mark.slow
def test_the_maps_of_a_batch_are_those_of_each_image():
    model, state, images = make_lenet()
    maps, new_state = forward_features(model, state, images)
    assert list(maps) == ["stage1", "stage2"]
    assert [each.shape for each in maps.values()] == [(3, 14, 14, 6), (3, 5, 5, 16)]
    for row in range(3):
        single, _ = model.features(images[row], state, key=None)
        for one, each in zip(single, maps.values(), strict=True):
            np.testing.assert_allclose(each[row], one, rtol=1e-5, atol=1e-6)
    assert jax.tree.leaves(new_state) == jax.tree.leaves(state)


@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("stage2", ["stage2"]),
        (2, ["stage1"]),
        ((4, 2), ["stage1", "stage2"]),
        (["stage1", 4, "stage2"], ["stage1", "stage2"]),
        ((), []),
    ],
)
def test_stages_are_selected_by_name_or_stride(at, names):
    model, state, images = make_lenet()
    chosen, _ = eqx.filter_jit(forward_features)(model, state, images, at=at)
    whole, _ = forward_features(model, state, images)
    assert list(chosen) == names
    for name in names:
        np.testing.assert_allclose(chosen[name], whole[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", ["stage3", 3, 8, ("stage1", "stem")])
def test_an_unknown_stage_is_refused(at):
    with pytest.raises(InputError, match=r"`at` .* is not a stage of this `LeNet`: it has 'stage1', 'stage2', 2, 4"):
        forward_features(*make_lenet(), at=at)


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", FAMILIES)
def test_the_strides_of_every_family_are_those_of_its_card(family):
    name = FAMILIES[family]
    row = registry.variant(name)

    def select(key, images, at):
        model, state = zoo.create_model(name, num_classes=2, key=key)
        return forward_features(model, state, images, key=key, at=at)[0]

    images = jax.ShapeDtypeStruct((2, *row.input), jnp.float32)
    if not row.strides:
        with pytest.raises(InputError, match="has no feature maps"):
            eqx.filter_eval_shape(select, jax.random.key(0), images, None)
        return
    stages = {f"stage{number}": stride for number, stride in enumerate(row.strides, 1)}
    maps = eqx.filter_eval_shape(select, jax.random.key(0), images, row.strides)
    last = {stride: name for name, stride in stages.items()}
    assert list(maps) == list(last.values())
    assert all(each.shape[0] == 2 for each in maps.values())


@pytest.mark.slow
def test_batch_statistics_of_the_backbone_are_in_the_new_state():
    model, state = zoo.create_model("resnet20", key=jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))

    def new_states(images):
        return forward_features(model, state, images)[1], forward(model, state, images, key=None)[1]

    of_features, of_scores = eqx.filter_jit(new_states)(images)
    assert not eqx.tree_equal(of_features, state)
    for ours, theirs in zip(jax.tree.leaves(of_features), jax.tree.leaves(of_scores), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_images_are_checked_as_in_forward():
    model, state, images = make_lenet()
    for wrong, message in ((images[0], "must be .batch, height"), (images.astype(jnp.int32), "must be floating point")):
        with pytest.raises(InputError, match=message):
            forward_features(model, state, wrong)


def test_networks_without_maps_are_refused():
    net = ChannelsFirst(eqx.nn.Lambda(lambda x: x.mean((1, 2))))
    with pytest.raises(InputError, match="a `ChannelsFirst` has no feature maps: give its class a method `features"):
        forward_features(net, None, jnp.zeros((2, 4, 4, 1)))
    mlp, state = zoo.create_model("mlp", image_size=4, in_channels=1, key=jax.random.key(0))
    with pytest.raises(InputError, match="a `MLP` has no feature maps: use `forward`"):
        forward_features(mlp, state, jnp.zeros((2, 4, 4, 1)))


class Submodule(eqx.Module):
    """A network whose first layers are the field `features`, as in torchvision's networks."""

    features: eqx.nn.Sequential

    def __call__(self, image):
        return self.features(image).mean((0, 1))


class OwnMethod(eqx.Module):
    """A network whose `features` takes the image only."""

    def features(self, image):
        return image

    def __call__(self, image):
        return self.features(image).mean((0, 1))


@pytest.mark.parametrize("net", [Submodule(eqx.nn.Sequential([eqx.nn.Identity()])), OwnMethod()])
def test_other_things_named_features_are_refused(net):
    with pytest.raises(InputError, match=r"has no feature maps: give its class a method `features\(image, state, "):
        forward_features(net, None, jnp.zeros((2, 4, 4, 1)))


class TwoMaps(eqx.Module):
    """A user's network with two feature maps of stride 1 and one of stride 3."""

    def __call__(self, image, state, *, key):
        return image.mean((0, 1)), state

    def features(self, image, state, *, key):
        return (image, 2 * image, image[::3, ::3]), state


def test_the_last_of_several_maps_of_one_stride_is_chosen():
    images = jnp.ones((2, 6, 9, 1))
    maps, state = forward_features(TwoMaps(), None, images, at=(1, 3))
    assert state is None
    assert {name: each.shape for name, each in maps.items()} == {"stage2": (2, 6, 9, 1), "stage3": (2, 2, 3, 1)}
    assert (maps["stage2"] == 2).all()


@pytest.mark.parametrize(
    "name", ["lenet", "mlp", "scratch", pytest.param("vit_tiny_patch4_32", marks=pytest.mark.slow)]
)
def test_networks_without_batchnorm_need_no_state(name):
    model, state = zoo.create_model(name, num_classes=2, in_channels=1, image_size=12, key=jax.random.key(0))
    model, images = eqx.nn.inference_mode(model), jnp.ones((2, 12, 12, 1))
    logits, none = forward(model, None, images, key=None)
    assert none is None
    np.testing.assert_allclose(logits, forward(model, state, images, key=None)[0], rtol=1e-5, atol=1e-6)


def test_a_network_with_batchnorm_needs_its_state():
    model, _ = eqx.filter_eval_shape(zoo.create_model, "resnet20", key=jax.random.key(0))
    for function in (forward, forward_features):
        with pytest.raises(InputError, match=r"`CifarResNet` has stateful layers, such as BatchNorm: pass the state"):
            function(model, None, jnp.ones((2, 8, 8, 3)), key=None)
