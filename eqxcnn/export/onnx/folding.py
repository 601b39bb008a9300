"""Passes over a finished graph: scales and shifts go into the convolution before them, and unused nodes are removed."""

from collections import Counter

import numpy as np

from .graph import Graph, Node

__all__ = ["fold_scales", "remove_unused"]


def fold_scales(graph: Graph, output: str) -> None:
    """Multiplies the kernels of convolutions by the scales that follow them, and adds shifts to their biases.

    So BatchNorm in eval mode needs no operation of its own.
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
            replaced[node.outputs[0]] = first
            uses[first] = uses[node.outputs[0]]
            graph.shapes[node.outputs[0]] = graph.shapes[first]
    # The result itself may have been replaced: its name stays.
    for old, new in replaced.items():
        if old == output:
            maker = graph.makers[new]
            maker.outputs[maker.outputs.index(new)] = old


def _per_channel(array: np.ndarray, channels: int) -> np.ndarray | None:
    """Returns one number per channel of maps `[b c h w]`, or `None` if the array has others."""
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
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    graph.nodes = kept[::-1]
    graph.arrays = {name: array for name, array in graph.arrays.items() if name in needed}
