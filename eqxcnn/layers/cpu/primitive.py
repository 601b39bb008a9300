"""JAX primitives with one implementation in programs for a CPU and another in programs for other platforms.

The choice depends on the platform that a program is lowered for, not on the machine that traces it: a program for a
GPU, even if it is lowered on a CPU, contains no implementation for CPUs. The public `jax.lax.platform_dependent` makes
the same choice, but `vmap` and `grad` then transform the implementations for all platforms, so a training step takes
two to three times as long to trace. A primitive has its own rules for these transformations, and only lowering
traces the chosen implementation.

This file needs private parts of JAX; see `availability.py`.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from ...cost import register_multiply_adds
from . import onednn

__all__ = ["make_primitive"]


def make_primitive(
    name: str,
    on_cpu: Callable[..., Any],
    elsewhere: Callable[..., Any],
    batching_rule: Callable[..., tuple[Any, Any]],
    count_multiply_adds: Callable[[Any], int] | None = None,
    multiple_results: bool = False,
) -> Primitive:
    """Returns a primitive of arrays and static keyword parameters; the caller defines its gradients.

    **Arguments:**

    - `on_cpu`, `elsewhere`: the implementations for a CPU and for other platforms. `on_cpu` takes the additional
      keyword `uses_onednn`: whether it may call oneDNN.
    - `batching_rule`: the rule for `vmap`, a function of the operands and their batch axes.
    - `count_multiply_adds`: returns the number of multiply-adds of a jaxpr equation of this primitive; `None` for a
      primitive without multiply-adds.
    - `multiple_results`: whether the functions return several arrays.
    """
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results

    @cache
    def compile_for(**parameters: Any) -> Callable[..., Any]:
        return jax.jit(partial(primitive.bind, **parameters))

    def evaluate(*operands: Any, **parameters: Any) -> Any:
        # With jit disabled, the compiled function would call `evaluate` again, in an infinite recursion.
        if getattr(jax.config, "jax_disable_jit", False):
            return elsewhere(*operands, **parameters)
        return compile_for(**parameters)(*operands)

    @lru_cache(maxsize=4096)
    def infer_types(*operands: ShapedArray, **parameters: Any) -> Any:
        results = jax.eval_shape(partial(elsewhere, **parameters), *operands)
        return jax.tree.map(lambda result: ShapedArray(result.shape, result.dtype), results)

    def lower_for_cpu(context: mlir.LoweringRuleContext, *operands: Any, **parameters: Any) -> Sequence[Any]:
        # The jaxlib that runs an exported program may lack oneDNN's calls.
        is_export = context.module_context.lowering_parameters.for_export
        function = partial(on_cpu, uses_onednn=not is_export and onednn.is_available())
        return mlir.lower_fun(function, multiple_results)(context, *operands, **parameters)

    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(infer_types)
    batching.primitive_batchers[primitive] = batching_rule
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere, multiple_results))
    mlir.register_lowering(primitive, lower_for_cpu, platform="cpu")
    if count_multiply_adds is not None:
        register_multiply_adds(name, count_multiply_adds)
    return primitive
