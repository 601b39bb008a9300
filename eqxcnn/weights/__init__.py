"""Conversion of models to and from named tensors, safetensors files and PyTorch weights."""

from .files import load_safetensors, save_safetensors, write_text_atomically
from .tensors import from_tensors, to_tensors
from .torch import from_torch, to_torch

__all__ = [
    "from_tensors",
    "from_torch",
    "load_safetensors",
    "save_safetensors",
    "to_tensors",
    "to_torch",
    "write_text_atomically",
]
