"""Augmentations by name: properties of all of them, their composition, and errors in their arguments."""

from functools import cache, partial
from typing import Literal, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn.augment import (
    AUGMENTS,
    ContextAugment,
    alternating_flip,
    brightness,
    build,
    compose,
    random_crop,
    random_flip_horizontal,
    random_rot90,
)
from eqxcnn.errors import InputError
from eqxcnn.ranges import declared_bounds, plain_type
from eqxcnn.types import AugmentContext

#: Compiling takes most of the time of these tests, and the programs are too small to need optimization.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
POLICIES = ["auto_augment", "rand_augment(2, 9)", "trivial_augment"]
ENTRIES = [
    "flip_horizontal",
    "flip_vertical(p=0.3)",
    "alternating_flip",
    "random_rot90",
    "random_rotation(30)",
    "random_crop(padding=2, mode='reflect')",
    "random_resized_crop(scale=(0.8, 1), ratio=(0.9, 1.1))",
    "brightness(0.2)",
    "random_brightness(max_delta=0.42)",
    "random_contrast(0.5, 1.5)",
    "random_saturation(lower=0, upper=2)",
    "random_hue(0.2)",
    "color_jitter(0.4, 0.4, 0.4, hue=0.1)",
    "cutout(3)",
    "random_erasing(0.9)",
    *POLICIES,
]


def images(batch, *shape):
    return jnp.asarray(np.random.default_rng(0).random((batch, *shape), np.float32))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@cache
def compiled(entry):
    """The augmentation `entry`, compiled for 16 images of 12 x 12 x 3 and 16 keys."""
    with jax.numpy_dtype_promotion("strict"):
        return jit(jax.vmap(build([entry]))).lower(images(16, 12, 12, 3), keys(16)).compile()


def over_keys(augment, image):
    """The augmented image for each of 64 keys, `[64 h w c]`."""
    return jit(jax.vmap(augment, in_axes=(None, 0)))(image, keys(64))


# --- all augmentations ---


def test_every_augmentation_is_covered_here():
    assert {AUGMENTS[entry.split("(")[0]] for entry in ENTRIES} == set(AUGMENTS.values())


def test_names_are_those_of_the_factories():
    for name, factory in AUGMENTS.items():
        assert factory.__name__ in (name, f"random_{name}")


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_result_depends_on_the_key_alone_and_stays_within_0_and_1(entry):
    run, batch = compiled(entry), images(16, 12, 12, 3)
    first = np.asarray(run(batch, keys(16)))
    assert np.array_equal(first, run(batch, keys(16)))
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6
    # Equal images differ with different keys.
    same = jnp.broadcast_to(batch[0], batch.shape)
    drawn = np.asarray(run(same, keys(16)))
    if entry.startswith("brightness"):
        assert (drawn == drawn[0]).all()
    else:
        assert len(np.unique(drawn.reshape(16, -1), axis=0)) > 1
        assert not np.array_equal(drawn, run(same, keys(16, seed=1)))


@pytest.mark.parametrize("entry", ENTRIES)
def test_shape_and_dtype_are_kept(entry):
    wide, high = ((12, 12, 3), (12, 12, 1)) if entry == "random_rot90" else ((10, 16, 3), (16, 10, 1))
    for shape, dtype in ((wide, jnp.bfloat16), (high, jnp.float32)):
        image = jax.ShapeDtypeStruct(shape, dtype)
        after = jax.eval_shape(build([entry]), image, keys(1)[0])
        assert (after.shape, after.dtype) == (image.shape, image.dtype)


@pytest.mark.parametrize("entry", POLICIES)
def test_policies_give_many_different_images_of_integers(entry):
    ramp = np.arange(12)[:, None, None] * 2 + np.arange(12)[None, :, None] + np.arange(3) * 40
    image = (ramp / np.float32(255)).astype(np.float32)
    batch = jnp.broadcast_to(image, (16, 12, 12, 3))
    after = np.concatenate([compiled(entry)(batch, keys(16, seed)) for seed in range(20)])
    np.testing.assert_allclose(after * 255, np.round(after * 255), atol=1e-4)
    assert 0 <= after.min() < after.max() <= 1
    # Some draws change nothing: identity, the histogram's equalization where it is flat, pairs with low probability.
    assert (np.abs(after - image) < 1e-6).all((1, 2, 3)).mean() < 0.5
    assert len({each.tobytes() for each in after}) > 15


# --- composition ---


def test_jit_and_vmap_change_nothing():
    augment = build(["flip_horizontal", "random_contrast(0.5, 1.5)"])
    batch = images(4, 6, 5, 3)
    together = jit(jax.vmap(augment))(batch, keys(4))
    np.testing.assert_allclose(together[2], augment(batch[2], keys(4)[2]), atol=1e-5)


def test_augmentations_apply_in_order():
    image = jnp.full((1, 1, 1), 0.5)
    key = jax.random.key(0)
    np.testing.assert_allclose(compose([brightness(0.7), brightness(-0.7)])(image, key), [[[0.3]]], atol=1e-6)
    np.testing.assert_allclose(build(["brightness(-0.7)", "brightness(0.7)"])(image, key), [[[0.7]]], atol=1e-6)


def test_augmentations_draw_independently_of_each_other_and_of_later_ones():
    image = images(1, 8, 8, 1)[0]
    flip = random_flip_horizontal()
    # Two flips with the same key would always undo each other.
    twice = over_keys(compose([flip, flip]), image)
    unchanged = (np.asarray(twice) == np.asarray(image)).all((1, 2, 3))
    assert 16 < unchanged.sum() < 48
    crop = random_crop(3)
    assert jnp.array_equal(over_keys(compose([crop, brightness(0)]), image), over_keys(compose([crop]), image))


def test_the_context_reaches_every_augmentation_that_takes_one():
    def add_epoch(image, key, context):
        return image + 0.01 * context.epoch

    def add_image_key(image, key, context):
        return image + jax.random.uniform(context.image_key)

    image, key, image_key = jnp.zeros((1, 1, 1)), jax.random.key(0), jax.random.key(7)
    augment = compose([ContextAugment(add_epoch), brightness(0.1), ContextAugment(add_image_key)])
    after = augment(image, key, AugmentContext(image_key, jnp.int32(3)))
    np.testing.assert_allclose(after.item(), 0.03 + 0.1 + jax.random.uniform(image_key).item(), rtol=1e-5)
    # Without a context, it is epoch 0 and the key identifies the image.
    np.testing.assert_allclose(augment(image, key).item(), 0.1 + jax.random.uniform(key).item(), rtol=1e-5)


def test_alternating_flips_show_both_sides_in_any_two_successive_epochs():
    image = jnp.arange(3.0).reshape(1, 3, 1) / 2
    flip = jit(alternating_flip().change)
    starts = []
    for image_key in keys(16):
        # The other key has no influence.
        contexts = [AugmentContext(image_key, jnp.int32(epoch)) for epoch in range(4)]
        shown = [flip(image, key, context)[0, 0, 0].item() == 1 for key, context in zip(keys(4), contexts, strict=True)]
        assert shown == [shown[0], not shown[0]] * 2
        starts.append(shown[0])
    assert 2 < sum(starts) < 14


def test_an_empty_list_builds_no_augmentation():
    assert build([]) is None


# --- errors ---


def test_a_batch_or_integers_are_rejected():
    augment = compose([random_rot90()])
    with pytest.raises(TypeCheckError, match="image"):
        augment(images(2, 8, 8, 3), jax.random.key(0))
    with pytest.raises(TypeCheckError, match="image"):
        augment(jnp.zeros((8, 8, 3), jnp.uint8), jax.random.key(0))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("flip_horizonal", "no augmentation `flip_horizonal`: did you mean .*`flip_horizontal`"),
        ("mixup(0.2)", "no augmentation `mixup`: known: `alternating_flip`"),
        ("random_crop", "missing a required argument: 'padding'; write `random_crop.padding: int, mode: Literal"),
        ("random_crop(paddin=2)", "random_crop"),
        ("random_crop(2, size=3)", "unexpected keyword argument 'size'"),
        ("random_crop(2, 'edge', 3)", "too many positional arguments"),
        ("random_crop('two')", r"`padding` \(='two'\) of `random_crop` must be a whole number"),
        ("random_crop(2.5)", r"`padding` \(=2.5\)"),
        ("random_crop(padding=-2)", r"`padding` \(=-2\)"),
        ("random_resized_crop(scale=0.8)", r"`scale` \(=0.8\) of `random_resized_crop` must be a list of 2"),
        ("random_resized_crop(scale=(0.8, 1, 2))", r"`scale` \(=\(0.8, 1, 2\)\)"),
        ("random_hue(max_delta=None)", r"`max_delta` \(=None\)"),
        ("random_crop(padding=1, padding=2)", "cannot be read"),
        ("random_crop(**{'padding': 2})", "cannot be read"),
        ("random_crop(*(2,))", "is not a number, a string in quotes"),
        ("random_crop(padding=len('ab'))", "is not a number, a string in quotes"),
        ("random_crop(padding=2", "cannot be read"),
        ("__import__('os').getcwd()", "cannot be read"),
        ("", "cannot be read"),
        ("random_crop(2)(3)", "cannot be read"),
        ("random_crop(padding=1000000000)", r"`padding` \(=1000000000\) of `random_crop` must be from 0 to 4096"),
        ("cutout(size=1000000000000)", r"`size` .* must be from 1 to 4096"),
        ("cutout(2, fill=-1)", r"`fill` \(=-1\) of `cutout` must be from 0 to 1"),
        ("random_rotation(degrees=1e400)", "the number inf is not finite"),
        (f"random_rotation({'9' * 400})", "more than 30 digits"),
        (f"random_rotation({'9' * 5000})", "characters: write at most 500"),
        ("flip_horizontal(p=7)", r"`p` \(=7\) of `random_flip_horizontal` must be from 0 to 1"),
        ("flip_horizontal(True)", r"`p` \(=True\) .* must be a number"),
        ("flip_horizontal(0.5 if 1is 1 else 1)", "is not a number, a string in quotes"),
        ("random_erasing(ratio=(1, 1e300))", "must be from 0.001 to 1000"),
        ("rand_augment(operations=1000000)", r"must be from 1 to 20"),
        ("1+" * 10_000, "has 20000 characters: write at most 500"),
        ("1+" * 240, "cannot be read"),
        ("(" * 400, "cannot be read"),
        (f"flip_horizontal({'-' * 400}1)", "is not a number|cannot be read"),
        (f"flip_horizontal({'[' * 60}{']' * 60})", "more than 10 levels"),
        ("flip_horizontal(p='\x1b[31m')", r"`p` \(='\\x1b\[31m'\)"),
        ("flip_horizontal(\0)", "cannot be read"),
    ],
)
def test_bad_entries_are_rejected_in_one_sentence(entry, message):
    with pytest.raises(InputError, match=message) as caught:
        build(["random_rot90", entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("p", [0, 1])
def test_whole_numbers_are_accepted_where_floats_are_declared(p):
    image = images(1, 4, 4, 1)[0]
    expected = image[:, ::-1] if p else image
    assert jnp.array_equal(jit(build([f"flip_horizontal(p={p})"]))(image, keys(1)[0]), expected)


def test_every_argument_has_bounds():
    for factory in set(AUGMENTS.values()):
        for name, hint in get_type_hints(factory, include_extras=True).items():
            if name != "return" and plain_type(hint) is not bool and get_origin(hint) is not Literal:
                bounds = list(declared_bounds(hint))
                assert bounds, (factory.__name__, name)
                assert all(-1e4 < bound.low < bound.high < 1e4 for bound in bounds)


def test_one_string_is_not_a_list():
    with pytest.raises(InputError, match=r"write \['flip_horizontal'\]"):
        build("flip_horizontal")
