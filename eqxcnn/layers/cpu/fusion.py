"""Fuses each convolution of a traced network with what follows it, for inference on a CPU.

The scale and offset that follow a convolution, such as those of BatchNorm in eval mode, are folded into its kernel and
bias (Jacob et al. 2018, section 3.2). The addition of a shortcut and the activation become part of the convolution's
call to oneDNN; see `fused_convolution.py`.

This file needs private parts of JAX; see `availability.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array

from .convolution import convolve
from .fused_convolution import Activation, convolve_fused
from .implementation import Window

__all__ = ["FusedProgram"]

#: Operations that call a function once, and those of their parameters that may hold the function.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
#: Operations on weights that are computed once, with NumPy. The remaining operations are computed in every call.
_ON_WEIGHTS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "convert_element_type": lambda x: x,
    "reshape": lambda x: x,
    "squeeze": lambda x: x,
    "broadcast_in_dim": lambda x: x,
}
#: Larger arrays stay in the program, because only vectors of channels are needed to fold.
_MAX_SIZE = 2**16

#: Kernels multiplied by a scale, for the kernel's identity and the scale's bytes. Programs for different batch sizes
#: share them.
Folded: TypeAlias = dict[tuple[int, bytes], Array]


@dataclass(eq=False)
class _Weight:
    """A weight, or an array that is computed from weights only; `value` is `None` while the program is compiled."""

    shape: tuple[int, ...]
    value: Any
    is_literal: bool = False
    traced: Any = None


@dataclass(frozen=True, eq=False)
class _Convolution:
    """A convolution that is not computed yet, with the operations that follow it.

    - `shape`: the shape of the result, which differs from that of the outputs in axes of length 1.
    - `steps`: names and operands of arithmetic operations, one number per channel.
    """

    images: Array
    kernel: _Weight
    window: Window
    shape: tuple[int, ...]
    steps: tuple[tuple[str, _Weight], ...] = ()
    shortcut: Array | None = None
    activation: Activation | None = None

    @property
    def channels(self) -> int:
        return self.kernel.shape[-1]

    @property
    def is_open(self) -> bool:
        """Whether a further step, or a shortcut, can be fused."""
        return self.shortcut is None and self.activation is None


class FusedProgram:
    """A function of weights and one array, compiled for one shape of the array.

    **Arguments:**

    - `function`: a function of a list of arrays, some of which may be `None`, and of an array; it returns an array.
    - `weights`, `array`: arguments of the function.
    """

    def __init__(self, function: Callable[..., Any], weights: Sequence[Any], array: Any) -> None:
        self._given = jax.ShapeDtypeStruct(array.shape, array.dtype)
        self._program = jax.make_jaxpr(function)(list(weights), self._given)
        self._call = jax.jit(self._run)

    def constants(self, weights: Sequence[Any], folded: Folded) -> list[Array]:
        """Returns the arrays that `__call__` needs: folded weights, and those that stay as they are."""
        found: list[Array] = []

        def supply(weight: _Weight) -> Array:
            found.append(_as_jax(weight.value))
            return found[-1]

        evaluation = _Evaluation(supply, folded)
        given = [_Weight(weight.shape, weight) for weight in weights if weight is not None]
        jax.eval_shape(lambda array: evaluation.run(self._program, [*given, array]), self._given)
        return found

    def __call__(self, constants: Sequence[Array], array: Any) -> Array:
        """Returns the function's result for the weights that `constants` was called with."""
        return self._call(constants, array)

    def _run(self, constants: Sequence[Array], array: Array) -> Array:
        remaining = iter(constants)
        evaluation = _Evaluation(lambda _: next(remaining), None)
        given = [_Weight(variable.aval.shape, None) for variable in self._program.jaxpr.invars[:-1]]
        return evaluation.run(self._program, [*given, array])


class _Evaluation:
    """Evaluates a program once.

    **Arguments:**

    - `supply`: returns the array that takes the place of a weight.
    - `folded`: the kernels folded so far; `None` if the values of weights are unknown.
    """

    def __init__(self, supply: Callable[[_Weight], Any], folded: Folded | None) -> None:
        self._supply, self._folded = supply, folded

    def run(self, program: ClosedJaxpr, arguments: Sequence[Any]) -> Array:
        (result,) = self._evaluate(program, arguments)
        return self._compute(result)

    def _evaluate(self, program: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        jaxpr = program.jaxpr
        consts = [_Weight(np.shape(const), const) for const in program.consts]
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
        uses = Counter(atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, Literal))
        uses.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))

        def read(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return _Weight(np.shape(atom.val), atom.val, is_literal=True)
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
        if all(isinstance(operand, _Weight) for operand in operands) and (weight := _fold(equation, operands)):
            return [weight]
        if name in _RULES and (result := _RULES[name](self, equation, *operands)) is not None:
            return [result]
        results = equation.primitive.bind(*map(self._compute, operands), **equation.params)
        return results if equation.primitive.multiple_results else [results]

    def _compute(self, value: Any) -> Any:
        """Returns the array of a value."""
        if isinstance(value, _Convolution):
            return self._convolve(value).reshape(value.shape)
        if not isinstance(value, _Weight):
            return value
        if value.traced is None:
            value.traced = value.value if value.is_literal else self._supply(value)
        return value.traced

    def _convolve(self, value: _Convolution) -> Array:
        if value.is_open and not value.steps:
            return convolve(value.images, self._compute(value.kernel), value.window)
        kernel, bias = (self._compute(weight) for weight in self._fold_steps(value))
        shortcut = value.shortcut
        if shortcut is not None:
            shortcut = shortcut.reshape(jax.eval_shape(lambda: convolve(value.images, kernel, value.window)).shape)
        return convolve_fused(value.images, kernel, bias, shortcut, value.window, value.activation)

    def _fold_steps(self, value: _Convolution) -> tuple[_Weight, _Weight]:
        """Returns the kernel and the bias that include all steps."""
        kernel, channels = value.kernel, (value.channels,)
        if self._folded is None:
            is_scaled = any(name in ("mul", "div") for name, _ in value.steps)
            return (_Weight(kernel.shape, None) if is_scaled else kernel), _Weight(channels, None)
        scale, bias = np.ones(channels), np.zeros(channels)
        for name, weight in value.steps:
            operand = np.asarray(weight.value, np.float64).reshape(-1)
            scale = _ON_WEIGHTS[name](scale, operand) if name in ("mul", "div") else scale
            bias = _ON_WEIGHTS[name](bias, operand)
        if any(name in ("mul", "div") for name, _ in value.steps):
            key = id(kernel.value), scale.tobytes()
            if key not in self._folded:
                self._folded[key] = _as_jax(np.asarray(kernel.value) * scale.astype(np.float32))
            kernel = _Weight(kernel.shape, self._folded[key])
        return kernel, _Weight(channels, bias.astype(np.float32))

    def add_convolution(self, equation: Any, images: Any, kernel: Any, bias: Any = None) -> _Convolution | None:
        is_float32 = all(atom.aval.dtype == jnp.float32 for atom in equation.invars)
        if not (is_float32 and isinstance(kernel, _Weight) and (bias is None or isinstance(bias, _Weight))):
            return None
        steps = () if bias is None else (("add", bias),)
        shape = equation.outvars[0].aval.shape
        return _Convolution(self._compute(images), kernel, equation.params["window"], shape, steps)

    def reshape(self, equation: Any, operand: Any, *_: Any) -> _Convolution | None:
        """Keeps a convolution open if only axes of length 1 are added or removed."""
        if not isinstance(operand, _Convolution):
            return None
        shape = equation.outvars[0].aval.shape
        lengths, new = ([length for length in each if length != 1] for each in (operand.shape, shape))
        is_same = lengths == new and shape[-1:] == operand.shape[-1:]
        return replace(operand, shape=shape) if is_same else None

    def convert(self, equation: Any, operand: Any) -> Any:
        return operand if isinstance(operand, _Convolution) and equation.params["new_dtype"] == jnp.float32 else None

    def step(self, equation: Any, left: Any, right: Any) -> _Convolution | None:
        """Fuses an arithmetic operation, if one of its operands is a convolution."""
        name, shape = equation.primitive.name, equation.outvars[0].aval.shape
        if not isinstance(left, _Convolution) and name in ("add", "mul"):
            left, right = right, left
        if not isinstance(left, _Convolution) or not left.is_open or shape != left.shape:
            return None
        if isinstance(right, _Weight):
            is_per_channel = right.shape[-1:] == (left.channels,) == (np.prod(right.shape, dtype=int),)
            return replace(left, steps=(*left.steps, (name, right))) if is_per_channel or not right.shape else None
        shortcut = self._compute(right)
        return replace(left, shortcut=shortcut) if name == "add" and shortcut.shape == shape else None

    def clamp(self, equation: Any, left: Any, right: Any) -> _Convolution | None:
        """Fuses `max(x, 0)`, and `min(x, 6)` of the result."""
        value, limit = (left, right) if isinstance(left, _Convolution) else (right, left)
        if not isinstance(value, _Convolution) or not isinstance(limit, _Weight) or not limit.is_literal:
            return None
        match equation.primitive.name, value.activation, float(limit.value):
            case "max", None, 0.0:
                return replace(value, activation="relu")
            case "min", "relu", 6.0:
                return replace(value, activation="relu6")
        return None


_RULES: dict[str, Callable[..., Any]] = {
    "eqxcnn_convolution": _Evaluation.add_convolution,
    "eqxcnn_biased_convolution": _Evaluation.add_convolution,
    "eqxcnn_barrier_on_cpu": lambda evaluation, equation, operand: operand,
    "reshape": _Evaluation.reshape,
    "squeeze": _Evaluation.reshape,
    "broadcast_in_dim": _Evaluation.reshape,
    "convert_element_type": _Evaluation.convert,
    **dict.fromkeys(("add", "sub", "mul", "div"), _Evaluation.step),
    **dict.fromkeys(("max", "min"), _Evaluation.clamp),
}


def _fold(equation: Any, weights: Sequence[_Weight]) -> _Weight | None:
    """Computes an operation on weights; returns `None` if it must stay in the program."""
    (out, *others), compute = equation.outvars, _ON_WEIGHTS.get(equation.primitive.name)
    size = np.prod(out.aval.shape, dtype=int)
    if others or compute is None or size > _MAX_SIZE or size > max(np.prod(w.shape, dtype=int) for w in weights):
        return None
    if any(weight.value is None for weight in weights):
        return _Weight(out.aval.shape, None)
    # Operations such as `reshape` have no other effect than the shape and dtype of the result.
    value = compute(*(np.asarray(weight.value) for weight in weights))
    return _Weight(out.aval.shape, value.astype(out.aval.dtype).reshape(out.aval.shape))


def _as_jax(array: Any) -> Array:
    with jax.ensure_compile_time_eval():  # Otherwise, the conversion would become a part of the program being traced.
        return jnp.asarray(array)


def _is_silu(jaxpr: Any) -> bool:
    """Returns whether a function of one array is `x * logistic(x)`."""
    if [equation.primitive.name for equation in jaxpr.eqns] != ["logistic", "mul"] or len(jaxpr.invars) != 1:
        return False
    logistic, product = jaxpr.eqns
    if any(isinstance(atom, Literal) for atom in (*logistic.invars, *product.invars)):
        return False
    return {*product.invars} == {*jaxpr.invars, *logistic.outvars} and jaxpr.outvars == product.outvars
