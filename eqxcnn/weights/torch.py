"""PyTorch's weights by name, both ways: every tensor has one place, and none is left without a word."""

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
from .tensors import from_tensors, shapes, to_tensors

#: Where training scripts put the weights in what they save, and what wrappers put before each name.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def from_torch(name: str, source: Mapping[str, Any] | str | Path, **arguments: Any) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model with the weights of its torchvision or timm twin.

    **Arguments:**

    - `name`: one of `zoo.list_models()`.
    - `source`: a `state_dict` (torch tensors or NumPy arrays), or a `.safetensors`, `.pth` or `.pt` file; the last two
      are read by torch itself, as weights only, and need it installed.
    - further keywords are those of `zoo.create_model`: `num_classes`, `in_channels`, `image_size` and others.

    **Returns:** the model and its state, as `zoo.create_model` does.

    **Raises:** `InputError` that names the tensors which are missing, left over, or of another shape.
    """
    model, state = eqx.filter_eval_shape(build, name, **arguments, key=jax.random.key(0))
    names = names_of(family(name))
    return from_tensors(model, state, convert_from_torch(name, names, shapes(model, state), read_torch(source)))


def to_torch(name: str, model: PyTree, state: eqx.nn.State) -> dict[str, np.ndarray]:
    """The `state_dict` of the model's torch twin, as NumPy arrays; `from_torch` undoes it exactly.

    **Arguments:**

    - `name`: what `zoo.create_model` was given.
    - `model`, `state`: what it returned, trained or not.
    """
    names = names_of(family(name))
    return {names.torch_name(ours): _laid_out(ours, array, names) for ours, array in to_tensors(model, state).items()}


def read_torch(source: Mapping[str, Any] | str | Path) -> dict[str, np.ndarray]:
    """The tensors of a `state_dict` or of a file with one, as NumPy arrays by torch's names.

    **Raises:** `InputError` when there is no such file, or it holds something else.
    """
    tensors = source if isinstance(source, Mapping) else _read(Path(source))
    for wrapper in _WRAPPERS:
        if isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: _as_numpy(name, tensor) for name, tensor in tensors.items()}


def convert_from_torch_except_head(
    name: str, places: Mapping[str, tuple[int, ...]], tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`convert_from_torch` by torchvision's names, without the head where it is of other classes than torch's."""
    names = names_of(family(name))
    head = {ours: names.torch_name(ours) for ours in places if ours.startswith("head.")}
    both = [(ours, theirs) for ours, theirs in head.items() if theirs in tensors]
    if any(tensors[theirs].size != math.prod(places[ours]) for ours, theirs in both):
        places = {ours: shape for ours, shape in places.items() if ours not in head}
        tensors = {theirs: tensor for theirs, tensor in tensors.items() if theirs not in head.values()}
    return convert_from_torch(name, names, places, tensors)


def convert_from_torch(
    name: str, names: Names, places: Mapping[str, tuple[int, ...]], tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Our tensors for places of these shapes, taken from torch's.

    **Raises:** `InputError` that names, as torch does, what is missing, left over or misshapen.
    """
    tensors = {names.current(theirs): tensor for theirs, tensor in tensors.items() if not names.is_left_out(theirs)}
    expected = {names.torch_name(ours): ours for ours in places}
    taken, misshapen = {}, []
    for theirs, ours in expected.items():
        if theirs not in tensors:
            continue
        wanted = _laid_out(ours, np.broadcast_to(np.float32(0), places[ours]), names).shape
        tensor = tensors[theirs]
        if tensor.shape == wanted or (names.RESHAPED and tensor.size == math.prod(wanted)):
            taken[ours] = _taken_up(ours, tensor.reshape(wanted), places[ours], names)
        else:
            misshapen.append(f"`{theirs}` is {list(tensor.shape)}, expected {list(wanted)}")
    missing = [f"`{theirs}`" for theirs in expected if theirs not in tensors]
    extra = [f"`{theirs}`" for theirs in tensors if theirs not in expected]
    clauses = (("missing", missing), ("left over", extra), ("of another shape", misshapen))
    if any(found for _, found in clauses):
        told = "; ".join(f"{len(found)} {kind} ({_listing(found)})" for kind, found in clauses if found)
        raise InputError(f"the tensors are not those of `{name}` as it is built here: {told}")
    return taken


def _laid_out(ours: str, array: np.ndarray, names: Names) -> np.ndarray:
    """Our tensor in torch's layout."""
    if array.ndim == 4:
        return rearrange(array, "kh kw i o -> o i kh kw")
    if ours in names.FLATTENED:
        height, width = names.FLATTENED[ours]
        return rearrange(array, "o (h w c) -> o (c h w)", h=height, w=width)
    before, after = names.axes(ours)
    return array.reshape((1,) * before + array.shape + (1,) * after)


def _taken_up(ours: str, tensor: np.ndarray, shape: tuple[int, ...], names: Names) -> np.ndarray:
    """Torch's tensor in our layout and of our `shape`: `_laid_out` undone."""
    tensor = tensor.astype(np.float32)
    if len(shape) == 4:
        return rearrange(tensor, "o i kh kw -> kh kw i o")
    if ours in names.FLATTENED:
        height, width = names.FLATTENED[ours]
        return rearrange(tensor, "o (c h w) -> o (h w c)", h=height, w=width)
    return tensor.reshape(shape)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError(
            f"`{path}` is read by torch, which is not installed: install it, or convert the file to .safetensors"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    # Torch raises whatever its unpickler stumbles upon.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"`{path}` is no file that torch reads as weights only: {reason}") from error
    if not isinstance(tensors, Mapping):
        raise InputError(f"`{path}` holds a {type(tensors).__name__}, not named tensors: save `model.state_dict()`")
    return tensors


def _as_numpy(name: str, tensor: Any) -> np.ndarray:
    """A torch tensor or an array as NumPy's; half precisions that NumPy lacks come as float32."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(tensor, np.ndarray | np.generic | jax.Array):
        raise InputError(f"`{name}` is a {type(tensor).__name__}, not a tensor: give a `state_dict`")
    return np.asarray(tensor)


def _listing(found: list[str]) -> str:
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
