import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eqxcnn.augment import AUGMENTS, brightness, build, compose, random_crop, random_flip_horizontal, random_rot90
from eqxcnn.errors import InputError

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
    "auto_augment",
    "rand_augment(2, 9)",
    "trivial_augment",
]


def images(batch, *shape):
    return jnp.asarray(np.random.default_rng(0).random((batch, *shape), np.float32))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_every_augmentation_is_covered_here():
    assert {AUGMENTS[entry.split("(")[0]] for entry in ENTRIES} == set(AUGMENTS.values())


def test_names_are_those_of_the_factories():
    for name, factory in AUGMENTS.items():
        assert factory.__name__ in (name, f"random_{name}")


def over_keys(augment, image):
    """The image as each of 64 keys changes it, `[64 h w c]`."""
    return jax.jit(jax.vmap(augment, in_axes=(None, 0)))(image, keys(64))


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_every_augmentation_keeps(entry):
    augment = build([entry])
    batch = images(16, 12, 12, 3)
    run = jax.jit(jax.vmap(augment))
    with jax.numpy_dtype_promotion("strict"):
        first = np.asarray(run(batch, keys(16)))
        assert np.array_equal(first, run(batch, keys(16)))
        assert first.min() >= 0
        assert first.max() <= 1 + 1e-6

        # Images that are all the same come out different, and different again with other keys.
        same = jnp.broadcast_to(batch[0], batch.shape)
        drawn = np.asarray(run(same, keys(16)))
        if entry.startswith("brightness"):
            assert (drawn == drawn[0]).all()
        else:
            assert len(np.unique(drawn.reshape(16, -1), axis=0)) > 1
            assert not np.array_equal(drawn, run(same, keys(16, seed=1)))

    for shape in [(12, 12, 3), (12, 12, 1)] if entry == "random_rot90" else [(16, 10, 3), (10, 16, 1)]:
        for dtype in (jnp.float32, jnp.bfloat16):
            image = jax.ShapeDtypeStruct(shape, dtype)
            kept = jax.eval_shape(augment, image, keys(1)[0])
            assert (kept.shape, kept.dtype) == (image.shape, image.dtype)


def test_jit_and_vmap_change_nothing():
    augment = build(["flip_horizontal", "random_contrast(0.5, 1.5)"])
    batch = images(4, 12, 10, 3)
    together = jax.jit(jax.vmap(augment))(batch, keys(4))
    np.testing.assert_allclose(together[2], augment(batch[2], keys(4)[2]), atol=1e-5)


def test_stages_apply_in_order():
    image = jnp.full((1, 1, 1), 0.5)
    key = jax.random.key(0)
    np.testing.assert_allclose(compose([brightness(0.7), brightness(-0.7)])(image, key), [[[0.3]]], atol=1e-6)
    np.testing.assert_allclose(build(["brightness(-0.7)", "brightness(0.7)"])(image, key), [[[0.7]]], atol=1e-6)


def test_stages_draw_apart_and_do_not_depend_on_later_ones():
    image = images(1, 8, 8, 1)[0]
    flip = random_flip_horizontal()
    # Two flips with one key between them would always undo each other.
    twice = over_keys(compose([flip, flip]), image)
    unchanged = (np.asarray(twice) == np.asarray(image)).all((1, 2, 3))
    assert 16 < unchanged.sum() < 48
    crop = random_crop(3)
    assert jnp.array_equal(over_keys(compose([crop, brightness(0)]), image), over_keys(compose([crop]), image))


def test_nothing_named_is_nothing_built():
    assert build([]) is None


def test_a_batch_or_whole_numbers_are_refused_at_the_door():
    augment = compose([random_rot90()])
    with pytest.raises(TypeCheckError, match="image"):
        augment(images(2, 8, 8, 3), jax.random.key(0))
    with pytest.raises(TypeCheckError, match="image"):
        augment(jnp.zeros((8, 8, 3), jnp.uint8), jax.random.key(0))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("flip_horizonal", "there is no `flip_horizonal`: did you mean .*`flip_horizontal`"),
        ("mixup(0.2)", "there is no `mixup`: known: `alternating_flip`"),
        ("random_crop", "missing a required argument: 'padding'; write `random_crop.padding: int, mode: str"),
        ("random_crop(paddin=2)", "random_crop"),
        ("random_crop(2, size=3)", "unexpected keyword argument 'size'"),
        ("random_crop(2, 'edge', 3)", "too many positional arguments"),
        ("random_crop('two')", r"`padding` \(='two'\) of `random_crop` must be of type `int`"),
        ("random_crop(2.5)", r"`padding` \(=2.5\)"),
        ("random_crop(padding=-2)", r"`padding` \(=-2\)"),
        ("random_resized_crop(scale=0.8)", r"`scale` \(=0.8\) of `random_resized_crop` must be of type `tuple"),
        ("random_resized_crop(scale=(0.8, 1, 2))", r"`scale` \(=\(0.8, 1, 2\)\)"),
        ("random_hue(max_delta=None)", r"`max_delta` \(=None\)"),
        ("random_crop(padding=1, padding=2)", "cannot be read"),
        ("random_crop(**{'padding': 2})", "cannot be read"),
        ("random_crop(*(2,))", "cannot be read"),
        ("random_crop(padding=len('ab'))", "cannot be read"),
        ("random_crop(padding=2", "cannot be read"),
        ("__import__('os').getcwd()", "cannot be read"),
        ("", "cannot be read"),
        ("random_crop(2)(3)", "cannot be read"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(entry, message):
    with pytest.raises(InputError, match=message) as caught:
        build(["random_rot90", entry])
    assert "\n" not in str(caught.value)


def test_one_string_is_not_a_list():
    with pytest.raises(InputError, match=r"write \['flip_horizontal'\]"):
        build("flip_horizontal")
