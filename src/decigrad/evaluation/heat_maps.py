"""Matrices as pictures: how training moved the weights, and how a decision answers its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation._style import INK, MAX_VECTOR_MARKS, WIDTH, new_figure
from decigrad.evaluation.statistics import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def weight_difference(
    before: Any,
    after: Any,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    names: tuple[str, str] = ("two-stage", "decision-focused"),
) -> Figure:
    """How training moved a weight matrix: after − before, blue for less, red for more.

    Arguments:
        before, after: [p, n] weights of a linear predictor, n outputs.
        rows, columns: labels of the p inputs and the n outputs.
    """
    a, b = np.atleast_2d(np.asarray(before, float)), np.atleast_2d(np.asarray(after, float))
    if a.shape != b.shape:
        raise ValueError(f"weights must have one shape, got {a.shape} and {b.shape}")
    title = f"Weights: {names[1]} minus {names[0]}"
    return _heat_map(b - a, title, ("input", "output"), "difference", rows, columns)


def sensitivity_heatmap(
    matrix: Any,
    *,
    variables: Sequence[str] | None = None,
    parameters: Sequence[str] | None = None,
    title: str = "Sensitivity of the decision, dx*/dc",
) -> Figure:
    """The Jacobian of a decision in its parameters, blue where x* falls as c rises, red where it rises.

    Arguments:
        matrix: [n_vars, n_params], as `Solution.sensitivity_matrix` returns it.
        variables, parameters: labels.
    """
    grid = np.atleast_2d(np.asarray(matrix, dtype=float))
    return _heat_map(grid, title, ("variable", "parameter"), "dx*/dc", variables, parameters)


def _heat_map(
    grid: np.ndarray,
    title: str,
    axis_names: tuple[str, str],
    bar_name: str,
    rows: Sequence[str] | None,
    columns: Sequence[str] | None,
) -> Figure:
    p, n = grid.shape
    width = float(np.clip(1.9 + 0.55 * n, 4.2, 2 * WIDTH))
    figure, (axes,) = new_figure(width, float(np.clip(1.5 + 0.42 * p, 2.6, 9.0)))
    known = grid[np.isfinite(grid)]
    reach = float(np.abs(known).max()) if known.size and np.abs(known).max() > 0 else 1.0
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(grid),
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        rasterized=grid.size > MAX_VECTOR_MARKS,
    )
    axes.grid(visible=False)
    axes.invert_yaxis()
    for labels, size, ticks in ((rows, p, axes.set_yticks), (columns, n, axes.set_xticks)):
        names = [str(s) for s in labels] if labels is not None else [str(k) for k in range(size)]
        if len(names) != size:
            raise ValueError(f"{len(names)} labels for {size} rows or columns")
        step = max(1, size // 20)
        ticks([k + 0.5 for k in range(0, size, step)], names[::step])
    if n > 4 and columns is not None and max(len(str(c)) for c in columns) > 4:
        axes.tick_params(axis="x", labelrotation=45)
    if p <= 12 and n <= 10:
        for i in range(p):
            for j in range(n):
                dark = np.isfinite(grid[i, j]) and abs(grid[i, j]) > 0.6 * reach
                # Cells keep their light-to-dark colours on any page, so their text is not the page's ink.
                colour = "#ffffff" if dark else "#1c2734"
                text = format_number(float(grid[i, j]), 2)
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_title(title)
    axes.set_ylabel(axis_names[0])
    axes.set_xlabel(axis_names[1])
    bar = figure.colorbar(mesh, ax=axes)
    bar.set_label(bar_name, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_edgecolor(INK)
    return figure
