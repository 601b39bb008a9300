"""Evaluates a traced network, with each convolution fused with what follows it, for inference on a CPU.

The scale and offset that follow a convolution, such as those of BatchNorm in eval mode, are folded into its kernel and
bias (Jacob et al. 2018, section 3.2). The addition of a shortcut and the activation become part of the convolution's
call to oneDNN; see `fused_convolution.py`. Kernels are stored in the form that is fastest; see `kernel_form.py`.

This file needs private parts of JAX; see `availability.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array

from .convolution import convolve
from .folded_weights import Folded, Weight, combine_steps, fold_kernel, fold_operation
from .fused_convolution import Activation, convolve_fused, finish, name_fused
from .implementation import Window
from .kernel_form import KernelForm, choose_form
from .winograd import convolve_by_winograd

__all__ = ["Evaluation"]

#: Operations that call a function once, and those of their parameters that may hold the function.
_CALLS = ("jit", "pjit", "checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclass(frozen=True, eq=False)
class _Convolution:
    """A convolution that is not computed yet, with the operations that follow it.

    - `outputs`: the shape of the convolution's outputs.
    - `shape`: the shape of the result, which differs from `outputs` at most in axes of length 1.
    - `steps`: the name of each arithmetic operation and its operand, a number or one number per channel.
    """

    images: Array
    kernel: Weight
    window: Window
    outputs: tuple[int, ...]
    shape: tuple[int, ...]
    steps: tuple[tuple[str, Weight], ...] = ()
    shortcut: Array | None = None
    activation: Activation | None = None

    @property
    def channels(self) -> int:
        return self.kernel.shape[-1]

    @property
    def is_open(self) -> bool:
        """Whether a further step, or a shortcut, can be fused."""
        return self.shortcut is None and self.activation is None

    @property
    def is_scaled(self) -> bool:
        """Whether the steps change the kernel, and not only the bias."""
        return any(name in ("mul", "div") for name, _ in self.steps)


class Evaluation:
    """Evaluates a program once.

    **Arguments:**

    - `supply`: returns the array that takes the place of a weight.
    - `folded`: the kernels folded so far; `None` if the values of weights are unknown.
    """

    def __init__(self, supply: Callable[[Weight], Any], folded: Folded | None) -> None:
        self._supply, self._folded = supply, folded

    def run(self, program: ClosedJaxpr, arguments: Sequence[Any]) -> Array:
        """Returns the program's result; an argument is a `Weight` or a traced array."""
        (result,) = self._evaluate(program, arguments)
        return self._compute(result)

    def _evaluate(self, program: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        jaxpr = program.jaxpr
        consts = [Weight(np.shape(const), const) for const in program.consts]
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
        uses = Counter(atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, Literal))
        uses.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))

        def read(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return Weight(np.shape(atom.val), atom.val, is_literal=True)
            if isinstance(values[atom], _Convolution) and uses[atom] > 1:
                values[atom] = self._compute(values[atom])
            return values[atom]

        for equation in jaxpr.eqns:
            results = self._apply(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        name = equation.primitive.name
        if name in _CALLS:
            called = next(equation.params[key] for key in _CALLED if key in equation.params)
            program = called if isinstance(called, ClosedJaxpr) else ClosedJaxpr(called, ())
            if _is_silu(program.jaxpr) and isinstance(operands[0], _Convolution) and operands[0].activation is None:
                return [replace(operands[0], activation="silu")]
            return self._evaluate(program, operands)
        if all(isinstance(operand, Weight) for operand in operands) and (weight := fold_operation(equation, operands)):
            return [weight]
        if name in _RULES and (result := _RULES[name](self, equation, *operands)) is not None:
            return [result]
        with equation.ctx.manager:
            results = equation.primitive.bind(*map(self._compute, operands), **equation.params)
        return results if equation.primitive.multiple_results else [results]

    def _compute(self, value: Any) -> Any:
        """Returns the array of a value."""
        if isinstance(value, _Convolution):
            return self._convolve(value).reshape(value.shape)
        if not isinstance(value, Weight):
            return value
        if value.traced is None:
            value.traced = value.value if value.is_literal else self._supply(value)
        return value.traced

    def _convolve(self, value: _Convolution) -> Array:
        fused = name_fused(value.channels, value.shortcut is not None, value.activation)
        form = choose_form(value.images.shape, value.kernel.shape, value.window, fused)
        if value.is_open and not value.steps and form.is_plain:
            return convolve(value.images, self._compute(value.kernel), value.window)
        kernel, bias = (self._compute(weight) for weight in self._fold_steps(value, form))
        shortcut = None if value.shortcut is None else value.shortcut.reshape(value.outputs)
        if not form.is_transformed:
            return convolve_fused(value.images, kernel, bias, shortcut, value.window, value.activation)
        out = convolve_by_winograd(value.images, kernel, value.window, value.channels)
        # Without the barrier, XLA would compute an output anew for each tile of the next convolution that contains it.
        added = () if shortcut is None else (shortcut,)
        return lax.optimization_barrier(finish(out, bias, value.activation, *added))

    def _fold_steps(self, value: _Convolution, form: KernelForm) -> tuple[Weight, Weight]:
        """Returns the kernel, in its form, and the bias that include all steps."""
        kernel, channels = value.kernel, (value.channels,)
        is_changed = value.is_scaled or not form.is_plain
        if self._folded is None:
            return (Weight(kernel.shape, None) if is_changed else kernel), Weight(channels, None)
        scale, bias = combine_steps(value.steps, channels)
        if is_changed:
            kernel = fold_kernel(kernel, scale if value.is_scaled else None, form, self._folded)
        return kernel, Weight(channels, bias)

    def add_convolution(self, equation: Any, images: Any, kernel: Any, bias: Any = None) -> _Convolution | None:
        """Starts a convolution with weights in float32."""
        is_float32 = all(atom.aval.dtype == jnp.float32 for atom in equation.invars)
        if not (is_float32 and isinstance(kernel, Weight) and (bias is None or isinstance(bias, Weight))):
            return None
        steps = () if bias is None else (("add", bias),)
        shape = equation.outvars[0].aval.shape
        return _Convolution(self._compute(images), kernel, equation.params["window"], shape, shape, steps)

    def reshape(self, equation: Any, operand: Any, *_: Any) -> _Convolution | None:
        """Keeps a convolution open if only axes of length 1 are added or removed."""
        if not isinstance(operand, _Convolution):
            return None
        shape = equation.outvars[0].aval.shape
        lengths, new = ([length for length in each if length != 1] for each in (operand.shape, shape))
        is_same = lengths == new and shape[-1:] == operand.shape[-1:]
        return replace(operand, shape=shape) if is_same else None

    def drop_barrier(self, equation: Any, operand: Any) -> Any:
        """Drops a barrier that training needs; in half precision, jax 0.12 needs it for inference too (`conv.py`)."""
        return operand if equation.outvars[0].aval.dtype == jnp.float32 else None

    def convert(self, equation: Any, operand: Any) -> _Convolution | None:
        """Ignores a conversion from float32 to float32."""
        return operand if isinstance(operand, _Convolution) and equation.params["new_dtype"] == jnp.float32 else None

    def step(self, equation: Any, left: Any, right: Any) -> _Convolution | None:
        """Fuses an arithmetic operation, if one of its operands is a convolution."""
        name, shape = equation.primitive.name, equation.outvars[0].aval.shape
        if name in ("add", "mul") and not (isinstance(left, _Convolution) and left.is_open):
            left, right = right, left
        if not isinstance(left, _Convolution) or not left.is_open or shape != left.shape:
            return None
        if isinstance(right, Weight):
            is_per_channel = right.shape[-1:] == (left.channels,) == (np.prod(right.shape, dtype=int),)
            if is_per_channel or not right.shape:
                return replace(left, steps=(*left.steps, (name, right)))
        elif name == "add" and right.shape == shape:
            return replace(left, shortcut=self._compute(right))
        return None

    def clamp(self, equation: Any, left: Any, right: Any) -> _Convolution | None:
        """Fuses `max(x, 0)`, and `min(x, 6)` of the result."""
        value, limit = (left, right) if isinstance(left, _Convolution) else (right, left)
        if not isinstance(value, _Convolution) or not isinstance(limit, Weight) or not limit.is_literal:
            return None
        match equation.primitive.name, value.activation, float(limit.value):
            case "max", None, 0.0:
                return replace(value, activation="relu")
            case "min", "relu", 6.0:
                return replace(value, activation="relu6")
        return None


_RULES: dict[str, Callable[..., Any]] = {
    "eqxcnn_convolution": Evaluation.add_convolution,
    "eqxcnn_biased_convolution": Evaluation.add_convolution,
    "eqxcnn_barrier_on_cpu": Evaluation.drop_barrier,
    "reshape": Evaluation.reshape,
    "squeeze": Evaluation.reshape,
    "broadcast_in_dim": Evaluation.reshape,
    "convert_element_type": Evaluation.convert,
    **dict.fromkeys(("add", "sub", "mul", "div"), Evaluation.step),
    **dict.fromkeys(("max", "min"), Evaluation.clamp),
}


def _is_silu(jaxpr: Any) -> bool:
    """Returns whether a function of one array is `x * logistic(x)`."""
    if [equation.primitive.name for equation in jaxpr.eqns] != ["logistic", "mul"] or len(jaxpr.invars) != 1:
        return False
    logistic, product = jaxpr.eqns
    if any(isinstance(atom, Literal) for atom in (*logistic.invars, *product.invars)):
        return False
    is_of_input = [*logistic.invars] == [*jaxpr.invars] and jaxpr.outvars == product.outvars
    return is_of_input and {*product.invars} == {*jaxpr.invars, *logistic.outvars}
