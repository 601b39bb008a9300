"""A Matplotlib figure that Jupyter shows without pyplot."""

import io

import matplotlib.figure

__all__ = ["Figure"]


class Figure(matplotlib.figure.Figure):
    """A figure that Jupyter shows as a picture. Jupyter shows a plain Matplotlib figure only if pyplot made it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=150)
        return file.getvalue()
