"""Exports a trained classifier to other runtimes: as StableHLO, as ONNX, or as weights for PyTorch.

Modules are imported when a name is first used, so that `load` needs only JAX, NumPy and flatbuffers.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .loading import LoadedProgram, load
    from .onnx import export_onnx
    from .stablehlo import export_stablehlo
    from .torch_weights import export_torch_weights

__all__ = ["LoadedProgram", "export_onnx", "export_stablehlo", "export_torch_weights", "load"]

_HOMES = {
    "LoadedProgram": "loading",
    "export_onnx": "onnx",
    "export_stablehlo": "stablehlo",
    "export_torch_weights": "torch_weights",
    "load": "loading",
}

__getattr__, __dir__ = lazy_names(__name__, __all__, _HOMES)
