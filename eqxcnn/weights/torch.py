"""Conversion to and from PyTorch weights by name. A tensor that does not fit is an error."""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import PyTree

from ..errors import InputError
from ..registry import MAX_PARAMETERS, build, family
from ..types import Classifier
from .files import check_regular, check_zip, load_safetensors
from .names import Names, names_of
from .tensors import check_finite, describe_problems, from_tensors, tensor_shapes, to_tensors

__all__ = [
    "convert_from_torch",
    "convert_from_torch_except_head",
    "from_torch",
    "read_torch",
    "to_torch",
    "torch_shape",
]

#: The keys under which training scripts save the weights, and the prefixes that wrappers add to each name.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
#: The attributes and methods of a torch tensor that mark an unsupported kind of tensor, with the name of the kind.
#: Supported tensors are dense arrays of real numbers.
_UNUSUAL = {"is_quantized": "quantized", "is_meta": "meta", "is_nested": "nested", "is_complex": "complex"}


def from_torch(name: str, source: Mapping[str, Any] | str | Path, **arguments: Any) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model with the weights of its torchvision or timm twin.

    **Arguments:**

    - `name`: one of `zoo.list_models()`.
    - `source`: a `state_dict` (torch tensors or NumPy arrays), or a `.safetensors`, `.pth` or `.pt` file. Torch must be
      installed for `.pth` and `.pt` files, which it reads with `weights_only=True`.
    - `**arguments`: as for `zoo.create_model`: `num_classes`, `in_channels`, `image_size` and others.

    **Returns:** the model and its state, as `zoo.create_model` does.

    **Raises:** `InputError` that names the tensors that are missing or unexpected, or have a wrong shape.
    """
    model, state = cast(
        tuple[Classifier, eqx.nn.State], eqx.filter_eval_shape(build, name, **arguments, key=jax.random.key(0))
    )
    names = names_of(family(name))
    tensors = convert_from_torch(name, names, tensor_shapes(model, state), read_torch(source))
    return from_tensors(model, state, tensors)


def to_torch(name: str, model: PyTree, state: eqx.nn.State) -> dict[str, np.ndarray]:
    """Returns the `state_dict` of the model's torch twin as contiguous NumPy arrays; the inverse of `from_torch`.

    **Arguments:**

    - `name`: the model's name in the zoo.
    - `model`, `state`: as returned by `zoo.create_model`, trained or not.
    """
    names = names_of(family(name))
    # Contiguous, because `safetensors.numpy.save_file` writes a transposed view in the wrong order.
    return {
        names.torch_name(ours): np.asarray(_to_torch_layout(ours, array, names), order="C")
        for ours, array in to_tensors(model, state).items()
    }


def read_torch(source: Any) -> dict[str, np.ndarray]:
    """Returns the tensors of a `state_dict`, or of a file that contains one, as NumPy arrays by torch's names.

    **Arguments:**

    - `source`: as for `from_torch`; anything else is refused.

    **Raises:** `InputError` if the file does not exist, or if a value is not a dense tensor of finite numbers.
    """
    origin = f"`{source}`" if isinstance(source, str | Path) else "the `state_dict`"
    tensors = _read_file(Path(source)) if isinstance(source, str | Path) else source
    if not isinstance(tensors, Mapping):
        raise InputError(f"{origin} is a {type(tensors).__name__}, not named tensors: give `model.state_dict()`")
    for wrapper in _WRAPPERS:
        if isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if unnamed := [name for name in tensors if not isinstance(name, str)]:
        raise InputError(f"{origin} has the key {unnamed[0]!r}, not the name of a tensor: give `model.state_dict()`")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # The values are counted before any copy, because an expanded tensor takes little memory until it is copied.
    count = sum(math.prod(getattr(tensor, "shape", ())) for tensor in tensors.values())
    if count > 2 * MAX_PARAMETERS:
        raise InputError(f"{origin} has {count:,} values, more than a model can have: give `model.state_dict()`")
    arrays = {name: _to_numpy(name, tensor) for name, tensor in tensors.items()}
    check_finite(arrays, origin)
    return arrays


def convert_from_torch_except_head(
    name: str, shapes: Mapping[str, tuple[int, ...]], tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Runs `convert_from_torch` with torchvision's names; leaves out the head if the number of classes differs."""
    names = names_of(family(name))
    head = {ours: names.torch_name(ours) for ours in shapes if ours.startswith("head.")}
    in_both = [(ours, theirs) for ours, theirs in head.items() if theirs in tensors]
    if any(tensors[theirs].size != math.prod(shapes[ours]) for ours, theirs in in_both):
        shapes = {ours: shape for ours, shape in shapes.items() if ours not in head}
        tensors = {theirs: tensor for theirs, tensor in tensors.items() if theirs not in head.values()}
    return convert_from_torch(name, names, shapes, tensors)


def convert_from_torch(
    name: str, names: Names, shapes: Mapping[str, tuple[int, ...]], tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts torch's tensors to ours.

    **Arguments:**

    - `name`: the model's name, for error messages.
    - `names`: the names of the model's tensors in torch.
    - `shapes`: the shapes of our tensors by our names.
    - `tensors`: torch's tensors by torch's names.

    **Raises:** `InputError` that names, as torch does, the tensors that are missing, unexpected or of a wrong shape.
    """
    tensors = {
        names.update_legacy_name(theirs): tensor for theirs, tensor in tensors.items() if not names.is_ignored(theirs)
    }
    expected = {names.torch_name(ours): ours for ours in shapes}
    converted, misshapen, mistyped = {}, [], []
    for theirs, ours in expected.items():
        if theirs not in tensors:
            continue
        shape = torch_shape(ours, shapes[ours], names)
        tensor = tensors[theirs]
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            mistyped.append(f"`{theirs}` is {tensor.dtype}, expected float32")
        elif tensor.shape == shape or (names.allow_reshape and tensor.size == math.prod(shape)):
            converted[ours] = _from_torch_layout(ours, tensor.reshape(shape), shapes[ours], names)
        else:
            misshapen.append(f"`{theirs}` is {list(tensor.shape)}, expected {list(shape)}")
    problems = describe_problems(
        {
            "missing": [f"`{theirs}`" for theirs in expected if theirs not in tensors],
            "unexpected": [f"`{theirs}`" for theirs in tensors if theirs not in expected],
            "with a wrong shape": misshapen,
            "with a wrong dtype": mistyped,
        }
    )
    if problems:
        raise InputError(f"the tensors do not fit `{name}` with these settings: {problems}")
    return converted


def torch_shape(ours: str, shape: tuple[int, ...], names: Names) -> tuple[int, ...]:
    """Returns the shape that torch gives our tensor of this name and shape."""
    return _to_torch_layout(ours, np.broadcast_to(np.float32(0), shape), names).shape


def _to_torch_layout(ours: str, array: np.ndarray, names: Names) -> np.ndarray:
    """Returns our tensor in torch's layout, as a view where possible."""
    if array.ndim == 4:
        return rearrange(array, "kh kw i o -> o i kh kw")
    if ours in names.FLATTENED:
        height, width = names.FLATTENED[ours]
        return rearrange(array, "o (h w c) -> o (c h w)", h=height, w=width)
    before, after = names.extra_axes(ours)
    return array.reshape((1,) * before + array.shape + (1,) * after)


def _from_torch_layout(ours: str, tensor: np.ndarray, shape: tuple[int, ...], names: Names) -> np.ndarray:
    """Returns torch's tensor in our layout and `shape`: the inverse of `_to_torch_layout`."""
    tensor = tensor.astype(np.float32)
    if len(shape) == 4:
        return rearrange(tensor, "o i kh kw -> kh kw i o")
    if ours in names.FLATTENED:
        height, width = names.FLATTENED[ours]
        return rearrange(tensor, "o (c h w) -> o (h w c)", h=height, w=width)
    return tensor.reshape(shape)


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError(
            f"reading `{path}` needs torch, which is not installed: install it, or convert the file to .safetensors"
        ) from None
    check_regular(path)
    check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    # Torch's unpickler raises errors of many types, and its messages advise loading the file unsafely.
    except Exception as error:
        raise InputError(
            f"torch cannot read `{path}` with weights_only=True ({type(error).__name__}): the file is damaged, or it "
            "contains objects other than tensors; save `model.state_dict()` alone, with `torch.save`"
        ) from error


def _to_numpy(name: str, tensor: Any) -> np.ndarray:
    """Converts a torch tensor or an array to NumPy; torch's floats become float32, because NumPy has no bfloat16."""
    if hasattr(tensor, "detach"):
        if form := _unusual_form(tensor):
            raise InputError(f"`{name}` is a {form} tensor: convert it to a dense tensor of floats before saving")
        try:
            tensor = tensor.detach().cpu()
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (RuntimeError, TypeError) as error:
            raise InputError(f"`{name}` has no values that NumPy can hold: save a copy of it in float32") from error
    if isinstance(tensor, Mapping):
        raise InputError(
            f"`{name}` is a {type(tensor).__name__}, not a tensor: pass only this entry if it holds the weights"
        )
    if not isinstance(tensor, np.ndarray | np.generic | jax.Array):
        raise InputError(f"`{name}` has type {type(tensor).__name__}, not a tensor: give a `state_dict`")
    array = np.asarray(tensor)
    with np.errstate(over="ignore"):  # `check_finite` refuses values that become infinite
        return array.astype(np.float32, copy=False) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _unusual_form(tensor: Any) -> str | None:
    """Returns the kind of an unsupported torch tensor, such as "sparse coo"; `None` for a supported tensor."""
    for attribute, form in _UNUSUAL.items():
        value = getattr(tensor, attribute, False)
        if value() if callable(value) else value:
            return form
    layout = str(getattr(tensor, "layout", "torch.strided")).removeprefix("torch.")
    return None if layout == "strided" else layout.replace("_", " ")
