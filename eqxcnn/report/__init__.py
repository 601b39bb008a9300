"""Reports: pictures for papers, and an HTML page with all of them, from a run's folder."""

from .write import show_augment, write_report

__all__ = ["show_augment", "write_report"]
