"""Weights of a network, and what inference computes from them only once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array

from ...runtime.transfer import to_device
from .kernel_form import KernelForm

__all__ = ["Folded", "Weight", "as_jax", "combine_steps", "fold_kernel", "fold_operation"]

#: Operations on weights that are computed once, with NumPy. The remaining operations are computed in every call.
_ON_WEIGHTS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    # These change only the shape or dtype.
    **dict.fromkeys(("broadcast_in_dim", "convert_element_type", "reshape", "squeeze"), lambda x: x),
}
#: Operations on larger arrays stay in the program, because only vectors of channels are needed to fold.
_MAX_SIZE = 2**16

#: Scaled kernels in their forms. The key is the kernel's `id`, the bytes of the scale, and the form. The value is the
#: kernel and the new kernel; the kernel is kept so that no other array can get its `id`. Programs for all batch sizes
#: share them.
Folded: TypeAlias = dict[tuple[int, bytes | None, KernelForm], tuple[Any, Array]]


@dataclass(eq=False)
class Weight:
    """A weight, or an array that is computed from weights only.

    - `value`: `None` while the program is compiled, except for arrays that are part of the program.
    - `is_literal`: whether it is a number in the program's text.
    - `traced`: the array in the program that is evaluated, once it is needed.
    """

    shape: tuple[int, ...]
    value: Any
    is_literal: bool = False
    traced: Any = None


def fold_operation(equation: Any, weights: Sequence[Weight]) -> Weight | None:
    """Computes an operation on weights; returns `None` if it must stay in the program."""
    (out, *others), compute = equation.outvars, _ON_WEIGHTS.get(equation.primitive.name)
    size = np.prod(out.aval.shape, dtype=int)
    if others or compute is None or size > _MAX_SIZE or size > max(np.prod(w.shape, dtype=int) for w in weights):
        return None
    if any(weight.value is None for weight in weights):
        return Weight(out.aval.shape, None)
    with np.errstate(all="ignore"):  # `FusedJit` checks the results
        value = compute(*(np.asarray(weight.value) for weight in weights))
    return Weight(out.aval.shape, value.astype(out.aval.dtype).reshape(out.aval.shape))


def combine_steps(steps: Sequence[tuple[str, Weight]], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale, in float64, and the offset that a sequence of additions and multiplications amounts to.

    **Arguments:**

    - `steps`: the name of each operation and its operand, a number or one number per channel.
    - `shape`: the number of channels, as a shape.
    """
    scale, offset = np.ones(shape), np.zeros(shape)
    with np.errstate(all="ignore"):
        for name, weight in steps:
            operand = np.asarray(weight.value, np.float64).reshape(-1)
            scale = _ON_WEIGHTS[name](scale, operand) if name in ("mul", "div") else scale
            offset = _ON_WEIGHTS[name](offset, operand)
        return scale, offset.astype(np.float32)


def fold_kernel(kernel: Weight, scale: np.ndarray | None, form: KernelForm, folded: Folded) -> Weight:
    """Returns the kernel multiplied by a scale per output channel, in the given form."""
    key = id(kernel.value), None if scale is None else scale.tobytes(), form
    if key not in folded:
        value = np.asarray(kernel.value)
        with np.errstate(all="ignore"):
            value = value if scale is None else value * scale.astype(np.float32)
        folded[key] = kernel.value, as_jax(form.apply(value))
    return Weight(kernel.shape, folded[key][1])


def as_jax(array: Any) -> Array:
    """Returns a JAX array with a value, even while a program is traced."""
    with jax.ensure_compile_time_eval():
        return array if isinstance(array, jax.Array) else to_device(np.asarray(array))
