"""How a network is called: the zoo's signature, or that of any other Equinox module."""

import inspect
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .errors import InputError
from .types import Image, Key, Logits, ModelState, Network

__all__ = ["ChannelsFirst", "Signature", "call_network", "check_state", "signature_of"]


class Signature(NamedTuple):
    """Which arguments a network takes besides the image.

    - `takes_state`, `needs_state`: whether it has a parameter `state`, and one without a default.
    - `takes_key`: whether it has a parameter `key`.
    """

    takes_state: bool
    needs_state: bool
    takes_key: bool


def call_network(network: Network, image: Image, state: ModelState, *, key: Key | None) -> tuple[Logits, ModelState]:
    """Calls a network on one image `[h w c]`, with those of state and key that it takes.

    **Returns:** its scores `[classes]` and its new state; without a state, or for a network that takes none, `state`
        unchanged.
    """
    signature = signature_of(type(network))
    function: Any = network
    keywords = {"key": key} if signature.takes_key else {}
    if not signature.takes_state or (state is None and not signature.needs_state):
        return function(image, **keywords), state
    if state is None:  # as for a network of the zoo without BatchNorm
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
        raise InputError(f"`{network_type.__qualname__}` has no signature that can be read: {error}") from error
    by_name = {parameter.name: parameter for parameter in parameters}
    required = [
        name
        for name, parameter in by_name.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    unknown = [name for name in required[1:] if name not in ("state", "key")]
    if not by_name or unknown or not issubclass(network_type, eqx.Module):
        raise InputError(
            f"a `{network_type.__qualname__}` cannot be trained: it must be an Equinox module that is called as "
            "`net(image)`, `net(image, key=key)` or `net(image, state, key=key)`"
        )
    return Signature("state" in by_name, "state" in required, "key" in by_name)


def check_state(network: Network, state: ModelState) -> None:
    """Checks that a network with state indices comes with its state.

    **Raises:** `InputError`.
    """
    if state is None and any(map(_is_index, jax.tree.leaves(network, is_leaf=_is_index))):
        raise InputError(
            f"`{type(network).__qualname__}` has a state, such as that of BatchNorm: pass the one that "
            "`eqx.nn.make_with_state` returned with it"
        )


def _is_index(leaf: object) -> bool:
    return isinstance(leaf, eqx.nn.StateIndex)


class ChannelsFirst(eqx.Module):
    """Calls a network that takes images `[c h w]`, as one of `eqx.nn` layers does, on images `[h w c]`.

    - `net`: the network.
    """

    net: Network

    def __call__(self, image: Image, state: ModelState = None, *, key: Key | None = None) -> Any:
        """Returns what the network returns: its scores, or with a state the scores and the new state."""
        logits, new = call_network(self.net, jnp.moveaxis(image, -1, 0), state, key=key)
        return logits if state is None else (logits, new)
