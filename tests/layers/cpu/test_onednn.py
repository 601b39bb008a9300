"""oneDNN is called only where its calls are known to work."""

import platform
from functools import partial

import jax
import jax.numpy as jnp
import jaxlib
import pytest

from eqxcnn.layers import Conv, Linear
from eqxcnn.layers.cpu import onednn

KEY = jax.random.key(0)


def numpy_init(key, shape, dtype=jnp.float32):
    """Returns zeros instead of random weights, because JAX would compile a program for each shape of random weights."""
    return jnp.zeros(shape, dtype)


LAYERS = [
    (Conv(8, 6, 3, weight_init=numpy_init, key=KEY), (9, 9, 8)),
    (Conv(1024, 512, 1, weight_init=numpy_init, key=KEY), (4, 4, 1024)),
    (Linear(1024, 512, key=KEY), (1024,)),
]


def lower(layer, shape, batch_size=16):
    traced = jax.jit(jax.vmap(layer)).trace(jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32))
    return traced.lower(lowering_platforms=("cpu",)).as_text()


def test_tested_jaxlibs_call_it():
    is_expected = (
        jaxlib.__version__ in onednn._TESTED_JAXLIBS
        and (platform.system(), platform.machine()) == ("Linux", "x86_64")
        and jax.device_count("cpu") == 1
    )
    if not is_expected:
        pytest.skip("another jaxlib or machine")
    assert onednn.is_available()
    for layer, shape in LAYERS:
        assert "__onednn$" in lower(layer, shape)
    # XLA computes convolutions of a single image with less than 2**23 multiply-adds and at least five channels.
    conv = Conv(64, 64, 3, weight_init=numpy_init, key=KEY)
    for size, is_by_xla in ((4, True), (15, True), (16, False)):
        assert ("__onednn$" not in lower(conv, (size, size, 64), batch_size=1)) == is_by_xla
    for channels, is_by_xla in ((4, False), (5, True)):
        conv = Conv(channels, 8, 3, weight_init=numpy_init, key=KEY)
        assert ("__onednn$" not in lower(conv, (9, 9, channels), batch_size=1)) == is_by_xla
    conv = Conv(64, 64, 3, weight_init=numpy_init, key=KEY)
    assert "__onednn$" in lower(conv, (8, 8, 64), batch_size=2)
    grouped = Conv(64, 64, 3, groups=2, weight_init=numpy_init, key=KEY)
    assert "__onednn$" in lower(grouped, (10, 10, 64), batch_size=1)


@pytest.mark.parametrize(
    "reason", ["version", "machine", "build", "no CPU", "environment", "devices", "compilation cache"]
)
def test_layers_use_xla_without_it(reason, monkeypatch, tmp_path, request):
    monkeypatch.setattr(onednn, "_is_supported", onednn._is_supported.__wrapped__)
    match reason:
        case "version":
            monkeypatch.setattr(jaxlib, "__version__", "0.11.7")
        case "machine":
            monkeypatch.setattr(onednn.platform, "machine", lambda: "arm64")
        case "build":
            monkeypatch.setitem(onednn._TARGETS, "matmul", ("__nothing$matmul", "onednn_matmul_config"))
        case "no CPU":

            def find_devices(backend):
                raise RuntimeError("Backend 'cpu' is not in the list of known backends: cuda")

            monkeypatch.setattr(jax, "local_devices", find_devices)
        case "environment":
            monkeypatch.setenv("EQXCNN_ONEDNN", "0")
        case "devices":
            monkeypatch.setattr(jax, "device_count", lambda backend: 2)
        case "compilation cache":
            jax.config.update("jax_compilation_cache_dir", str(tmp_path))
            request.addfinalizer(partial(jax.config.update, "jax_compilation_cache_dir", None))
    assert not onednn.is_available()
    for layer, shape in LAYERS:
        assert "onednn" not in lower(layer, shape)
