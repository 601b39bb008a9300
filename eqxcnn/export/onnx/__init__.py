"""Converts a classifier to ONNX, one JAX operation at a time; the `onnx` package writes the file."""

from .exporting import export_onnx

__all__ = ["export_onnx"]
