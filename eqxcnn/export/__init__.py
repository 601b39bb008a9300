"""Exports a trained classifier to other runtimes: StableHLO, ONNX, and PyTorch's weights.

Modules are imported when a name is first used, so that `load` needs only JAX, NumPy and flatbuffers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
