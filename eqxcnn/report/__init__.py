"""Reports: a run folder in, pictures fit for a paper and one page that shows them out."""

from .write import show_augment, write_report

__all__ = ["show_augment", "write_report"]
