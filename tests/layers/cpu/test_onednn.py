"""Work is given to oneDNN where that is known to be carried out, and nowhere else."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxlib.version
import pytest

from eqxcnn.layers import Conv, Linear
from eqxcnn.layers.cpu import onednn

KEY = jax.random.key(0)


@pytest.mark.parametrize("without", ["version", "machine", "oneDNN", "wish", "one device", "memory only"])
def test_what_is_not_known_is_left_to_xla(without, monkeypatch, tmp_path, request):
    monkeypatch.setattr(onednn, "_is_known", onednn._is_known.__wrapped__)
    match without:
        case "version":
            monkeypatch.setattr(jaxlib.version, "__version__", "0.11.7")
        case "machine":
            monkeypatch.setattr(onednn.platform, "machine", lambda: "arm64")
        case "oneDNN":
            monkeypatch.setitem(onednn._NAMES, "matmul", ("__nothing$matmul", "onednn_matmul_config"))
        case "wish":
            monkeypatch.setenv("EQXCNN_ONEDNN", "0")
        case "one device":
            monkeypatch.setattr(jax, "device_count", lambda: 2)
        case "memory only":
            jax.config.update("jax_compilation_cache_dir", str(tmp_path))
            request.addfinalizer(partial(jax.config.update, "jax_compilation_cache_dir", None))
    assert not onednn.is_available()
    for layer, one in (
        (Conv(8, 6, 3, key=KEY), (9, 9, 8)),
        (Conv(1024, 512, 1, key=KEY), (4, 4, 1024)),
        (Linear(1024, 512, key=KEY), (1024,)),
    ):
        given = jax.ShapeDtypeStruct((16, *one), jnp.float32)
        assert "onednn" not in jax.jit(jax.vmap(layer)).lower(given).as_text()
