"""Writes a graph as an ONNX file. Only this module uses the `onnx` package."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ... import __version__
from ..program import Program
from .graph import INPUT, Graph, Node
from .values import Shape, is_known

__all__ = ["write_model"]

#: The ONNX operator set, and the earliest file format version that supports it, so that older runtimes can read the
#: file.
_OPSET, _IR_VERSION = 18, 8
#: Weights of more bytes than this need a second file: a protobuf message of weights and nodes must be smaller than
#: 2 GiB.
_MAX_BYTES = 2**31 - 2**24
#: Arrays with fewer bytes stay in the `.onnx` file, because a runtime reads some of them, such as the shapes for
#: `Reshape`, before it reads the second file.
_MIN_EXTERNAL = 1024


def write_model(graph: Graph, result: str, program: Program, metadata: dict[str, str], path: Path) -> None:
    """Writes a graph that computes a batch of scores; weights of more than `_MAX_BYTES` go to a second file.

    **Arguments:**

    - `result`: the tensor with the scores.
    - `program`: determines the batch size and the name of the output.
    - `metadata`: strings by name.
    - `path`: the file; the second file is in the same folder, with `.data` appended to the name.
    """
    nodes = [_make_node(node) for node in graph.nodes]
    nodes.append(helper.make_node("Identity", [result], [program.outputs]))
    batch = "batch" if program.batch == "dynamic" else program.batch
    is_external = sum(array.nbytes for array in graph.arrays.values()) > _MAX_BYTES
    data = path.with_name(f"{path.name}.data") if is_external else None
    arrays = _make_arrays(graph.arrays, data)
    proto = helper.make_graph(
        nodes,
        metadata["model"],
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, _set_batch(graph.shapes[INPUT], batch))],
        [helper.make_tensor_value_info(program.outputs, TensorProto.FLOAT, _set_batch(graph.shapes[result], batch))],
        arrays,
    )
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="eqxcnn",
        producer_version=__version__,
    )  # fmt: skip
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _set_batch(shape: Shape, batch: int | str) -> list[int | str]:
    return [int(length) if is_known(length) else batch for length in shape]


def _make_node(node: Node) -> Any:
    attributes: dict[str, Any] = {
        name: helper.np_dtype_to_tensor_dtype(value) if isinstance(value, np.dtype) else value
        for name, value in node.attributes.items()
    }
    return helper.make_node(node.operator, node.inputs, [node.output], **attributes)


def _make_arrays(arrays: dict[str, np.ndarray], data: Path | None) -> list[Any]:
    """Returns the protobuf messages of arrays; if `data` is given, writes large arrays to that file."""
    if data is None:
        return [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    messages = []
    with data.open("wb") as file:
        for name, array in arrays.items():
            if array.nbytes < _MIN_EXTERNAL:
                messages.append(onnx.numpy_helper.from_array(array, name))
                continue
            offset = file.tell()
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            message = TensorProto(
                name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
            )  # fmt: skip
            for key, value in (("location", data.name), ("offset", offset), ("length", array.nbytes)):
                message.external_data.add(key=key, value=str(value))
            messages.append(message)
    return messages
