"""Calls of oneDNN on a CPU: the library PyTorch computes with, which jaxlib carries and XLA does not call.

XLA's compiler leaves convolutions and matrix products to Eigen and YNNPACK. The calls that it once made to oneDNN
instead, which is quicker, are still carried out by the jaxlib versions named here; they are no interface of JAX, so no
other version is trusted with them.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import jaxlib.version
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array

#: Where what is called here was tried, forward and backward (`tests/test_onednn*.py`).
_JAXLIBS = ("0.10.2", "0.12.0.1")
#: What jaxlib knows each call by, and its settings.
_NAMES = {
    "convolution": ("__onednn$convolution", "onednn_conv_config"),
    "matmul": ("__onednn$matmul", "onednn_matmul_config"),
}
Call: TypeAlias = Literal["convolution", "matmul"]


def is_available() -> bool:
    """Whether work can be given to oneDNN: nobody said no, and jaxlib and machine are known to take it.

    A program with such a call cannot be stored, so that JAX's cache of compiled programs on disk must be off; and one
    that several devices share would run the whole call on each of them, so there must be one.
    """
    wanted = os.environ.get("EQXCNN_ONEDNN", "1") != "0"
    stores = getattr(jax.config, "jax_compilation_cache_dir", None)
    return wanted and not stores and jax.device_count() == 1 and _is_known()


@cache
def _is_known() -> bool:
    machine = platform.system(), platform.machine()
    if jaxlib.version.__version__ not in _JAXLIBS or machine != ("Linux", "x86_64") or jax.default_backend() != "cpu":
        return False
    tried = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    try:
        jax.jit(lambda a, b: call("matmul", {}, tried, a, b)).lower(tried, tried).compile()
    except jax.errors.JaxRuntimeError:
        # Some build their jaxlib without it.
        return False
    return True


def call(what: Call, settings: dict[str, Any], out: jax.ShapeDtypeStruct, *operands: Array) -> Array:
    """One call of oneDNN in a program, told its settings as XLA's `onednn_config.proto` names them."""
    target, place = _NAMES[what]
    config = json.dumps({place: settings})
    return jax.ffi.ffi_call(target, out, custom_call_api_version=1, legacy_backend_config=config)(*operands)


def primitive(
    name: str,
    by_xla: Callable[..., Array],
    by_onednn: Callable[..., Array],
    batched: Callable[..., tuple[Array, int]],
) -> Primitive:
    """A function of arrays and keywords as JAX's transformations see it, by oneDNN on a CPU and by XLA anywhere else.

    **Arguments:**

    - `by_xla`, `by_onednn`: the function in both forms.
    - `batched`: its rule under `vmap`, of operands and their axes.
    """
    made = Primitive(name)

    @cache
    def compiled(**how: Any) -> Callable[..., Array]:
        return jax.jit(partial(made.bind, **how))

    def shape(*operands: Any, **how: Any) -> ShapedArray:
        return ShapedArray(jax.eval_shape(partial(by_xla, **how), *operands).shape, operands[0].dtype)

    def lowered(context: mlir.LoweringRuleContext, *operands: Any, **how: Any) -> Sequence[Any]:
        # An exported program may be run by a jaxlib that knows nothing of this.
        is_plain = context.module_context.lowering_parameters.for_export
        return mlir.lower_fun(by_xla if is_plain else by_onednn, multiple_results=False)(context, *operands, **how)

    made.def_impl(lambda *operands, **how: compiled(**how)(*operands))
    made.def_abstract_eval(shape)
    batching.primitive_batchers[made] = batched
    mlir.register_lowering(made, mlir.lower_fun(by_xla, multiple_results=False))
    mlir.register_lowering(made, lowered, platform="cpu")
    return made
