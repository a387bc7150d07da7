"""The picture of a benchmark: many methods, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation._style import BASELINE_COLOUR, INK, PALETTE, finite, new_figure, with_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def method_dots(
    values: Mapping[str, Any],
    published: Mapping[str, float] | None = None,
    floor: float | None = None,
    *,
    baseline: str = "two-stage",
    unit: str = "",
) -> Figure:
    """Regret of each method: a dot for each seed, a bar at the mean, a cross at the published figure.

    Arguments:
        values: by method, [S]; drawn from top to bottom in the given order.
        published: by method; those outside the range of the values are left out.
        floor: a dashed line: what no predictor can beat.
        baseline: drawn in grey, with a line across all methods.
    """
    if not values:
        raise ValueError("there is no method to draw")
    figure, (axes,) = new_figure(7.6, 1.3 + 0.24 * len(values))
    kept = {method: finite(v) for method, v in values.items()}
    pooled = np.concatenate([*kept.values(), [] if floor is None else [floor]])
    # A method that went astray would squeeze the others: the axis ends where most of them are.
    base = kept[baseline].mean() if baseline in kept else np.median(pooled)
    top = min(pooled.max(), base + 1.5 * (base - pooled.min()) + 1e-12 * abs(base))
    top = top if top > pooled.min() else pooled.max()
    for row, (method, found) in enumerate(kept.items()):
        colour = BASELINE_COLOUR if method == baseline else PALETTE[1] if method == "auto" else PALETTE[0]
        shown = np.minimum(found, top)
        axes.scatter(shown, np.full(len(shown), row), s=14, color=colour, alpha=0.5, linewidths=0, zorder=3)
        mean = float(found.mean()) if len(found) else np.nan
        if mean <= top:
            axes.plot([mean, mean], [row - 0.32, row + 0.32], color=colour, linewidth=2.4, zorder=4)
        else:
            axes.annotate(f"{mean:.4g} →", (top, row), ha="right", va="center", fontsize=8, color=INK)
        cross = (published or {}).get(method)
        if cross is not None and cross <= top:
            axes.plot([cross], [row], marker="x", markersize=6, color=INK, linestyle="", zorder=5)
    if baseline in kept:
        axes.axvline(float(kept[baseline].mean()), color=BASELINE_COLOUR, linewidth=1.0, label=baseline)
    if floor is not None:
        axes.axvline(floor, color=INK, linewidth=1.0, linestyle="--", label="true expected parameters")
    axes.set_yticks(range(len(kept)), list(kept))
    axes.set_ylim(len(kept) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(with_unit("regret", unit))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9, labelcolor=INK
        )
    return figure
