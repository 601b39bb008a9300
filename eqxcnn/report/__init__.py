"""Reports made from a run's folder: pictures for papers, and an HTML page that shows all of them."""

from .write import show_augment, write_report

__all__ = ["show_augment", "write_report"]
