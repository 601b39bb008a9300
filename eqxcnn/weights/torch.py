"""Conversion to and from PyTorch weights by name. A tensor that does not fit is an error."""

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from einops import rearrange
from jaxtyping import PyTree

from ..errors import InputError
from ..registry import build, family
from ..types import Classifier
from .files import load_safetensors
from .names import Names, names_of
from .tensors import describe_problems, from_tensors, tensor_shapes, to_tensors

#: The keys under which training scripts save the weights, and the prefixes that wrappers add to each name.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def from_torch(name: str, source: Mapping[str, Any] | str | Path, **arguments: Any) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model with the weights of its torchvision or timm twin.

    **Arguments:**

    - `name`: one of `zoo.list_models()`.
    - `source`: a `state_dict` (torch tensors or NumPy arrays), or a `.safetensors`, `.pth` or `.pt` file. The last two
      are read by torch with `weights_only=True`, and need torch installed.
    - `**arguments`: as for `zoo.create_model`: `num_classes`, `in_channels`, `image_size` and others.

    **Returns:** the model and its state, as `zoo.create_model` does.

    **Raises:** `InputError` that names the tensors which are missing, unexpected, or have another shape.
    """
    model, state = eqx.filter_eval_shape(build, name, **arguments, key=jax.random.key(0))
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


def read_torch(source: Mapping[str, Any] | str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a `state_dict`, or of a file that contains one, as NumPy arrays by torch's names.

    **Raises:** `InputError` if the file does not exist, or if there are values that are not tensors.
    """
    tensors = source if isinstance(source, Mapping) else _read_file(Path(source))
    for wrapper in _WRAPPERS:
        if isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: _to_numpy(name, tensor) for name, tensor in tensors.items()}


def convert_from_torch_except_head(
    name: str, shapes: Mapping[str, tuple[int, ...]], tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`convert_from_torch` by torchvision's names, without the head if the number of classes differs."""
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

    **Raises:** `InputError` that names, as torch does, what is missing, unexpected or has another shape.
    """
    tensors = {
        names.update_legacy_name(theirs): tensor for theirs, tensor in tensors.items() if not names.is_ignored(theirs)
    }
    expected = {names.torch_name(ours): ours for ours in shapes}
    converted, misshapen = {}, []
    for theirs, ours in expected.items():
        if theirs not in tensors:
            continue
        shape = torch_shape(ours, shapes[ours], names)
        tensor = tensors[theirs]
        if tensor.shape == shape or (names.allow_reshape and tensor.size == math.prod(shape)):
            converted[ours] = _from_torch_layout(ours, tensor.reshape(shape), shapes[ours], names)
        else:
            misshapen.append(f"`{theirs}` is {list(tensor.shape)}, expected {list(shape)}")
    problems = describe_problems(
        {
            "missing": [f"`{theirs}`" for theirs in expected if theirs not in tensors],
            "unexpected": [f"`{theirs}`" for theirs in tensors if theirs not in expected],
            "with another shape": misshapen,
        }
    )
    if problems:
        raise InputError(f"the tensors do not fit `{name}` with these settings: {problems}")
    return converted


def torch_shape(ours: str, shape: tuple[int, ...], names: Names) -> tuple[int, ...]:
    """Returns the shape in torch of our tensor of this name and shape."""
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


def _read_file(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError(
            f"reading `{path}` needs torch, which is not installed: install it, or convert the file to .safetensors"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    # Torch's unpickler raises errors of many types.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"torch cannot read `{path}` with weights_only=True: {reason}") from error
    if not isinstance(tensors, Mapping):
        raise InputError(f"`{path}` contains a {type(tensors).__name__}, not named tensors: save `model.state_dict()`")
    return tensors


def _to_numpy(name: str, tensor: Any) -> np.ndarray:
    """Converts a torch tensor or an array to NumPy; torch's floats become float32, because NumPy has no bfloat16."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(tensor, np.ndarray | np.generic | jax.Array):
        raise InputError(f"`{name}` has type {type(tensor).__name__}, not a tensor: give a `state_dict`")
    return np.asarray(tensor)
