import json

import numpy as np
import pytest

from benchmarks import layer_cases, layers
from benchmarks.layer_cases import LAYERS, jax_case, our_case
from eqxcnn.errors import InputError

#: Part of the name of one layer of each kind.
KINDS = (
    "32x32x16 to 16",
    "groups of 8",
    "16x16x96, stride 2",
    "max pool 3x3",
    "average pool 2x2",
    "global",
    "BatchNorm, 8x8",
)


@pytest.mark.parametrize("kind", KINDS)
def test_our_layer_and_the_plain_operation_have_the_same_values_and_gradients(kind, monkeypatch):
    monkeypatch.setattr(layer_cases, "BATCH", 2)
    name = next(name for name in LAYERS if kind in name)
    (out, _, grads), (plain_out, _, plain_grads) = (case(LAYERS[name], True)() for case in (our_case, jax_case))
    np.testing.assert_allclose(out, plain_out, rtol=1e-4, atol=1e-4)
    (_, image_grad), (_, plain_image_grad) = grads[0], plain_grads[0]
    np.testing.assert_allclose(image_grad, plain_image_grad, rtol=1e-3, atol=1e-3)


def test_each_pass_has_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_cases, "BATCH", 2)
    out = tmp_path / "layers.json"
    layers.main(["--only", "global", "--no-torch", "--rounds", "2", "--out", str(out)])
    forward, backward = json.loads(out.read_text())["tables"]
    assert forward["head"] == ["forward (ms)", "ours", "plain JAX", "ours / plain JAX"]
    assert backward["head"][0] == "forward and backward (ms)"
    assert [line[0] for line in forward["lines"]] == ["global average, 8x8x64"]
    assert all(float(cell) > 0 for cell in backward["lines"][0][1:3])


def test_an_unknown_layer_is_refused():
    with pytest.raises(InputError, match=r"`only` \(='softmax'\) must be part of a layer's name: convolution 3x3"):
        layers.main(["--only", "softmax"])
