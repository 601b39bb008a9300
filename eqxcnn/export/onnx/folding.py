"""Simplifies a finished graph: folds scales and shifts into convolutions, and removes unused nodes."""

from collections import Counter

import numpy as np

from .graph import Graph, Node

__all__ = ["fold_scales", "remove_unused"]


def fold_scales(graph: Graph, output: str) -> None:
    """Multiplies each convolution's kernel by the scale that follows it, and adds the shift to the convolution's bias.

    A BatchNorm in eval mode after a convolution then needs no operation of its own.
    """
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses[output] += 1
    replaced: dict[str, str] = {}
    for node in graph.nodes:
        node.inputs = [replaced.get(name, name) for name in node.inputs]
        if node.operator not in ("Add", "Mul", "Sub") or len(node.inputs) != 2:
            continue
        first, second = node.inputs
        if node.operator != "Sub" and first in graph.arrays:
            first, second = second, first
        convolution = graph.makers.get(first)
        if convolution is None or convolution.operator != "Conv" or second not in graph.arrays:
            continue
        channels = _per_channel(graph.arrays[second], graph.shapes[first][1])
        if channels is not None and uses[first] == 1 and _fold(graph, convolution, node.operator, channels):
            replaced[node.output] = first
            uses[first] = uses[node.output]
            graph.shapes[node.output] = graph.shapes[first]
    # The graph's output keeps its name, even if the node that computes it was folded into a convolution.
    if output in replaced:
        graph.makers[replaced[output]].output = output


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray | None:
    """Returns an array as one number per channel of maps `[b c h w]`, or `None` if it varies along other axes."""
    shape = (1,) * (4 - array.ndim) + array.shape
    if array.ndim > 4 or array.size != shape[1] or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,))


def _fold(graph: Graph, node: Node, operator: str, channels: np.ndarray) -> bool:
    kernel = graph.arrays.get(node.inputs[1])
    if kernel is None or kernel.dtype != channels.dtype:
        return False
    bias = graph.arrays[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(kernel), kernel.dtype)
    if operator == "Mul":
        node.inputs[1] = graph.store(kernel * channels[:, None, None, None])
        bias = bias * channels
    else:
        bias = bias + channels if operator == "Add" else bias - channels
    if len(node.inputs) > 2 or bias.any():
        node.inputs[2:] = [graph.store(bias)]
    return True


def remove_unused(graph: Graph, output: str) -> None:
    """Removes the nodes and arrays that the output does not need."""
    needed, kept = {output}, []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    graph.nodes = kept[::-1]
    graph.arrays = {name: array for name, array in graph.arrays.items() if name in needed}
