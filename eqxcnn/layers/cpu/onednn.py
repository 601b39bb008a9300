"""Calls oneDNN on a CPU, and checks whether the installed jaxlib can call it.

oneDNN is the library of convolutions and matrix products that PyTorch uses on CPUs. jaxlib contains it, but XLA's
compiler gives this work to Eigen or YNNPACK, which are slower. jaxlib still executes the custom calls that XLA used to
emit for oneDNN. These calls are not a public interface, so the layers use them only with the jaxlib versions that
the tests run with, and use plain JAX otherwise.
"""

import json
import os
import platform
from functools import cache
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import jaxlib
from jaxtyping import Array

__all__ = ["Operation", "call_onednn", "is_available"]

#: The jaxlib versions whose oneDNN calls were tested, forward and backward (`tests/layers/cpu/test_onednn*.py`).
_TESTED_JAXLIBS = ("0.10.2", "0.12.0.1")
#: For each operation, the name of the custom call in jaxlib, and the configuration field that holds its settings.
_TARGETS = {
    "convolution": ("__onednn$convolution", "onednn_conv_config"),
    "matmul": ("__onednn$matmul", "onednn_matmul_config"),
}
Operation: TypeAlias = Literal["convolution", "matmul"]


def is_available() -> bool:
    """Returns whether a program for a CPU may call oneDNN: jaxlib must support it, and `EQXCNN_ONEDNN` must not be 0.

    oneDNN is also unavailable in two cases:

    - With the persistent compilation cache: programs with these calls cannot be stored.
    - With more than one CPU device: each device would run the whole call.
    """
    is_wanted = os.environ.get("EQXCNN_ONEDNN", "1") != "0"
    is_cached_on_disk = getattr(jax.config, "jax_compilation_cache_dir", None)
    return is_wanted and not is_cached_on_disk and _is_supported() and jax.device_count("cpu") == 1


@cache
def _is_supported() -> bool:
    """Returns whether this machine and the installed JAX and jaxlib can execute calls to oneDNN."""
    machine = platform.system(), platform.machine()
    if getattr(jaxlib, "__version__", "") not in _TESTED_JAXLIBS or machine != ("Linux", "x86_64"):
        return False
    scalar = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda a, b: call_onednn("matmul", {}, scalar, a, b)).lower(scalar, scalar).compile()
    except RuntimeError:  # JAX was told not to use the CPU, or jaxlib was built without oneDNN
        return False
    return True


def call_onednn(operation: Operation, settings: dict[str, Any], out: jax.ShapeDtypeStruct, *operands: Array) -> Array:
    """Calls oneDNN from a traced program.

    **Arguments:**

    - `settings`: the fields of the operation's message in XLA's `onednn_config.proto`.
    - `out`: the shape and dtype of the result.
    """
    target, field = _TARGETS[operation]
    config = json.dumps({field: settings})
    return jax.ffi.ffi_call(target, out, custom_call_api_version=1, legacy_backend_config=config)(*operands)
