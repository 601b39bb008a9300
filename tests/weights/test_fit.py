"""Weights adapted to another head or to other image channels, compared with values worked by hand."""

import numpy as np
import pytest

from eqxcnn.errors import InputError
from eqxcnn.weights.fit import fit_tensors

#: A 1x1 kernel of three input and two output channels, and a head of two classes.
STEM = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32).reshape(1, 1, 3, 2)
TENSORS = {
    "stem.weight": STEM,
    "head.weight": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
    "head.bias": np.zeros(2, np.float32),
}
SHAPES = {name: tensor.shape for name, tensor in TENSORS.items()}


def test_tensors_that_fit_are_unchanged():
    fitted = fit_tensors(TENSORS, SHAPES, "it")
    assert list(fitted) == list(TENSORS)
    assert all(fitted[name] is TENSORS[name] for name in TENSORS)


@pytest.mark.parametrize(
    ("channels", "rows"),
    [
        (1, [[111, 222]]),
        (2, [[1.5, 3], [15, 30]]),
        (4, [[0.75, 1.5], [7.5, 15], [75, 150], [0.75, 1.5]]),
        (6, [[0.5, 1], [5, 10], [50, 100], [0.5, 1], [5, 10], [50, 100]]),
    ],
)
def test_the_stem_is_fitted_to_other_channels(channels, rows):
    fitted = fit_tensors(TENSORS, SHAPES | {"stem.weight": (1, 1, channels, 2)}, "it")["stem.weight"]
    assert fitted.dtype == np.float32
    assert fitted.tolist() == [[rows]]


@pytest.mark.parametrize(
    "head",
    [
        {"head.weight": (3, 2), "head.bias": (3,)},
        {},
        {"head.weight": (2, 2)},
        {"head.weight": (2, 2), "head.bias": (2,), "head.scale": (1,)},
    ],
)
def test_a_different_head_is_left_out(head):
    assert list(fit_tensors(TENSORS, {"stem.weight": STEM.shape} | head, "it")) == ["stem.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.weight": (3, 3, 3, 2)}, r"it does not fit: `stem.weight` is \[1, 1, 3, 2\], expected \[3, 3, 3, 2\]"),
        ({"stem.weight": (1, 1, 3, 4)}, r"`stem.weight` is \[1, 1, 3, 2\], expected \[1, 1, 3, 4\]"),
        ({"stem.weight": (1, 1, 3)}, r"`stem.weight` is \[1, 1, 3, 2\], expected \[1, 1, 3\]"),
        ({"norm.scale": (2,)}, r"it does not fit: `norm.scale` is missing"),
        ({"norm.scale": (2,), "aux.scale": (2,)}, r"it does not fit: `aux.scale` is missing"),
    ],
)
def test_other_differences_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        fit_tensors(TENSORS, SHAPES | change, "it")


def test_an_unexpected_tensor_is_refused():
    with pytest.raises(InputError, match=r"it does not fit: `norm.scale` is unexpected"):
        fit_tensors(TENSORS | {"norm.scale": np.ones(2)}, SHAPES, "it")


def test_other_floats_become_float32_and_other_types_are_refused():
    fitted = fit_tensors({"a": np.ones(2, np.float16)}, {"a": (2,)}, "it")
    assert fitted["a"].dtype == np.float32
    for dtype in (np.int32, bool, object):
        with pytest.raises(InputError, match=r"it does not fit: `a` is \w+, expected float32"):
            fit_tensors({"a": np.ones(2, dtype)}, {"a": (2,)}, "it")
