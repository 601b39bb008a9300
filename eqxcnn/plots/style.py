"""How pictures look. Sizes are those of papers: a column is 3.4 inches, a page 7. No text is smaller than 8 points.

Colors are Okabe's and Ito's, which the color-blind tell apart (https://jfly.uni-koeln.de/color/); lines differ in
dashes and markers too. Pyplot and matplotlib's global settings are left alone.
"""

from typing import Any

COLUMN, PAGE = 3.4, 7.0
BLUE, SKY, VERMILLION = "#0072B2", "#56B4E9", "#D55E00"

#: On top of matplotlib's defaults, whatever the user's own settings are.
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
        # Equal pictures become equal files.
        "svg.hashsalt": "eqxcnn",
    },
]
