"""The style of the pictures, with 8-point text, and the widths of a paper's column (3.4 inches) and page (7 inches).

Colors are from the palette of Okabe and Ito, which color-blind readers can tell apart
(https://jfly.uni-koeln.de/color/); lines also differ in dashes and markers. Pyplot and Matplotlib's global settings are
not changed.
"""

from typing import Any

__all__ = ["BLUE", "COLUMN", "PAGE", "SKY", "STYLE", "VERMILLION"]

COLUMN, PAGE = 3.4, 7.0
BLUE, SKY, VERMILLION = "#0072B2", "#56B4E9", "#D55E00"

#: The style starts from Matplotlib's defaults, so that the user's settings have no effect.
STYLE: list[Any] = [
    "default",
    {
        "font.size": 8,
        "axes.labelsize": 9,
        "axes.titlesize": 8,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.handlelength": 2.8,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "savefig.dpi": 200,
        # With a fixed salt, identical figures give identical SVG files.
        "svg.hashsalt": "eqxcnn",
    },
]
