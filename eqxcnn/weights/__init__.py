"""Models to and from named tensors and safetensors files."""

from .files import load_safetensors, save_safetensors, write_text_atomically
from .tensors import from_tensors, to_tensors

__all__ = ["from_tensors", "load_safetensors", "save_safetensors", "to_tensors", "write_text_atomically"]
