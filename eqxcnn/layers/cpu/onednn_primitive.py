"""JAX primitives that run oneDNN on a CPU and XLA's operation on every other device."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array

from ...cost import register_multiply_adds

__all__ = ["make_primitive"]


def make_primitive(
    name: str,
    by_xla: Callable[..., Array],
    by_onednn: Callable[..., Array],
    batching_rule: Callable[..., tuple[Array, int]],
    count_multiply_adds: Callable[[Any], int],
) -> Primitive:
    """Returns a primitive that takes arrays and, by keyword, static parameters; its gradients are not defined yet.

    **Arguments:**

    - `by_xla`, `by_onednn`: the same function, once as an XLA operation and once as a oneDNN call.
    - `batching_rule`: the rule for `vmap`, a function of the operands and their batch axes.
    - `count_multiply_adds`: the cost of one jaxpr equation of this primitive.
    """
    primitive = Primitive(name)

    @cache
    def compile_for(**parameters: Any) -> Callable[..., Array]:
        return jax.jit(partial(primitive.bind, **parameters))

    def evaluate(*operands: Any, **parameters: Any) -> Array:
        # With jit disabled, the compiled function would call `evaluate` again, in an infinite recursion.
        if getattr(jax.config, "jax_disable_jit", False):
            return by_xla(*operands, **parameters)
        return compile_for(**parameters)(*operands)

    def infer_shape(*operands: Any, **parameters: Any) -> ShapedArray:
        return ShapedArray(jax.eval_shape(partial(by_xla, **parameters), *operands).shape, operands[0].dtype)

    def lower_for_cpu(context: mlir.LoweringRuleContext, *operands: Any, **parameters: Any) -> Sequence[Any]:
        # The jaxlib that runs an exported program may not know oneDNN's calls.
        is_export = context.module_context.lowering_parameters.for_export
        return mlir.lower_fun(by_xla if is_export else by_onednn, multiple_results=False)(
            context, *operands, **parameters
        )

    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(infer_shape)
    batching.primitive_batchers[primitive] = batching_rule
    mlir.register_lowering(primitive, mlir.lower_fun(by_xla, multiple_results=False))
    mlir.register_lowering(primitive, lower_for_cpu, platform="cpu")
    register_multiply_adds(name, count_multiply_adds)
    return primitive
