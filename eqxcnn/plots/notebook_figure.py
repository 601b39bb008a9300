"""Matplotlib's figure, which Jupyter also shows if pyplot is not used."""

import io

import matplotlib.figure

__all__ = ["Figure"]


class Figure(matplotlib.figure.Figure):
    """A figure that Jupyter shows as a picture; Matplotlib's own is shown only by pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=150)
        return file.getvalue()
