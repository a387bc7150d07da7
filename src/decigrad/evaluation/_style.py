"""What all pictures share: colours, sizes, and an empty figure in the house's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1c2733"
PAPER = "#fefefe"
GRID = "#8a949e"
BASELINE_COLOUR = "#7d858c"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Blue, vermilion, green, purple, orange, sky (Okabe and Ito 2008, without black and yellow)."""
MARKERS = ("o", "s", "^", "D", "v", "P")
# A report shows figures side by side in columns of about this width, in inches, at their own size.
WIDTH = 5.2
# Above this many marks a layer is drawn as pixels inside the vector picture.
MAX_VECTOR_MARKS = 1500


def colours(methods: Sequence[str], baseline: str = "two-stage") -> dict[str, str]:
    """One colour a method, grey for the baseline; colours repeat after six methods."""
    others = [m for m in methods if m != baseline]
    out = {m: PALETTE[i % len(PALETTE)] for i, m in enumerate(others)}
    return {m: out.get(m, BASELINE_COLOUR) for m in methods}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure of rows × columns panels, sizes in inches, and its panels in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel().tolist()
    for axes in panels:
        axes.set_facecolor("none")
        axes.grid(visible=True, color=GRID, alpha=0.25, linewidth=0.7)
        axes.set_axisbelow(True)
        for name, spine in axes.spines.items():
            spine.set_color(INK)
            spine.set_visible(name in ("left", "bottom"))
        axes.tick_params(colors=INK, labelsize=9)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(INK)
        axes.title.set_fontsize(11)
    return figure, panels


def legend(axes: Axes, **where: Any) -> None:
    """A frameless legend in the page's ink."""
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **where)


def finite(values: Any) -> np.ndarray:
    """The finite entries, flattened."""
    v = np.ravel(np.asarray(values, dtype=float))
    return v[np.isfinite(v)]


def with_unit(name: str, unit: str) -> str:
    """`name [unit]`, or the name alone."""
    return f"{name} [{unit}]" if unit else name
