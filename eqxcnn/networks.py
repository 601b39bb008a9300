"""Calls any Equinox module as a classifier, and passes `state` and `key` only if the module takes them."""

import dataclasses
import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .errors import InputError
from .types import Image, Key, Logits, ModelState, Network

__all__ = ["ChannelsFirst", "Signature", "as_pair", "call_network", "check_state", "signature_of"]


class Signature(NamedTuple):
    """The arguments that a network takes besides the image.

    - `takes_state`: whether the network has a parameter `state`.
    - `needs_state`: whether the parameter `state` has no default.
    - `takes_key`: whether the network has a parameter `key`.
    """

    takes_state: bool
    needs_state: bool
    takes_key: bool


def call_network(network: Network, image: Image, state: ModelState, *, key: Key | None) -> tuple[Logits, ModelState]:
    """Calls a network on one image `[h w c]`; passes `state` and `key` only if the network takes them.

    **Returns:** the scores `[classes]` and the new state. A `state` that is `None` or not passed is returned unchanged.
    """
    signature = signature_of(type(network))
    function: Any = network
    keywords = {"key": key} if signature.takes_key else {}
    if not signature.takes_state or (state is None and not signature.needs_state):
        return function(image, **keywords), state
    if state is None:  # allowed for networks without stateful layers, such as a zoo model without BatchNorm
        return function(image, eqx.nn.State(network), **keywords)[0], None
    return function(image, state, **keywords)


@cache
def signature_of(network_type: type) -> Signature:
    """Reads a network's signature.

    **Raises:** `InputError` for a type whose instances cannot be called with one image.
    """
    try:
        parameters = list(inspect.signature(network_type.__call__).parameters.values())[1:]
    except (TypeError, ValueError) as error:
        raise InputError(f"`{network_type.__qualname__}` has no readable signature: {error}") from error
    by_name = {parameter.name: parameter for parameter in parameters}
    required = [
        name
        for name, parameter in by_name.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    unknown = [name for name in required[1:] if name not in ("state", "key")]
    first = parameters[0].kind if parameters else inspect.Parameter.KEYWORD_ONLY
    takes_image = first not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    if not takes_image or unknown or not _has_order(parameters) or not issubclass(network_type, eqx.Module):
        raise InputError(
            f"a `{network_type.__qualname__}` cannot be trained: it must be an Equinox module that is called as "
            "`net(image)`, `net(image, key=key)` or `net(image, state, key=key)`"
        )
    return Signature("state" in by_name, "state" in required, "key" in by_name)


def _has_order(parameters: Sequence[inspect.Parameter]) -> bool:
    """Returns whether `state` and `key`, if they are parameters, can be passed as in `net(image, state, key=key)`."""
    by_name = {parameter.name: parameter for parameter in parameters}
    state, key = by_name.get("state"), by_name.get("key")
    is_second = state is None or (state is parameters[1] and state.kind is not state.KEYWORD_ONLY)
    return is_second and (key is None or key.kind in (key.POSITIONAL_OR_KEYWORD, key.KEYWORD_ONLY))


def as_pair(model: Any) -> tuple[Network, ModelState]:
    """Returns a network and its state, which may be `None`, with NumPy arrays converted to JAX arrays.

    **Arguments:**

    - `model`: a network, or a pair of a network and its state, with arrays or with shapes only.

    **Raises:** `InputError` for any other object, and for arrays in static fields, which JAX cannot compare.
    """
    pair = model if isinstance(model, tuple) else (model, None)
    if len(pair) != 2 or not isinstance(pair[0], eqx.Module) or not isinstance(pair[1], eqx.nn.State | None):
        raise InputError("`model` must be an Equinox module, or a module and its state")
    if name := _find_static_array(pair[0]):
        raise InputError(
            f"the static field `{name}` of `model` holds an array: make the field non-static, and use the setting "
            "`freeze` to keep its values fixed"
        )
    network, state = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, pair)
    check_state(network, state)
    return network, state


def _find_static_array(node: Any) -> str | None:
    """Returns the name of the first static field with an array in it."""
    if not isinstance(node, eqx.Module):
        modules = jax.tree.leaves(node, is_leaf=lambda leaf: isinstance(leaf, eqx.Module))
        return next(filter(None, (_find_static_array(each) for each in modules if isinstance(each, eqx.Module))), None)
    for field in dataclasses.fields(node):
        value = getattr(node, field.name, None)
        if not field.metadata.get("static"):
            found = _find_static_array(value)
        else:
            has_array = any(isinstance(leaf, np.ndarray | jax.Array) for leaf in jax.tree.leaves(value))
            found = f"{type(node).__qualname__}.{field.name}" if has_array else None
        if found:
            return found
    return None


def check_state(network: Network, state: ModelState) -> None:
    """Checks that a network with stateful layers, such as BatchNorm, is given its state.

    **Raises:** `InputError`.
    """
    if state is None and any(map(_is_index, jax.tree.leaves(network, is_leaf=_is_index))):
        raise InputError(
            f"`{type(network).__qualname__}` has stateful layers, such as BatchNorm: pass the state that "
            "`eqx.nn.make_with_state` returns with the network"
        )


def _is_index(leaf: object) -> bool:
    return isinstance(leaf, eqx.nn.StateIndex)


class ChannelsFirst(eqx.Module):
    """Adapts a network for images `[c h w]`, such as one built from `eqx.nn` layers, to images `[h w c]`.

    - `net`: the network.
    """

    net: Network

    def __call__(self, image: Image, state: ModelState = None, *, key: Key | None = None) -> Any:
        """Returns the scores; if `state` is given, the scores and the new state."""
        logits, new = call_network(self.net, jnp.moveaxis(image, -1, 0), state, key=key)
        return logits if state is None else (logits, new)
