"""Measurements of the library's speed and accuracy; not part of the package."""
