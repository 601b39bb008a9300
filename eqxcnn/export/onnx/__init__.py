"""Converts a classifier to ONNX: from the operations of JAX, one by one, with the `onnx` package as the writer."""

from .exporting import export_onnx

__all__ = ["export_onnx"]
