"""Pictures of an evaluation or a comparison; each function returns a matplotlib `Figure`.

Figures are built with the object-oriented interface alone: no pyplot, no global state, no back-end, so they
work in threads and without a display. Save one with `figure.savefig("name.svg")`.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; the baseline is always grey. Text and
frames use `INK` on `PAPER`, two values that the report recognizes and replaces by the page's own colours, so
that its pictures follow a light or a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation._style import (
    BASELINE_COLOUR,
    INK,
    MARKERS,
    MAX_VECTOR_MARKS,
    PALETTE,
    WIDTH,
    colours,
    finite,
    legend,
    new_figure,
    with_unit,
)
from decigrad.evaluation.heat_maps import sensitivity_heatmap as sensitivity_heatmap
from decigrad.evaluation.heat_maps import weight_difference as weight_difference
from decigrad.evaluation.statistics import Interval, format_number, mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def regret_distribution(
    regrets: Mapping[str, Any], *, unit: str = "", baseline: str = "two-stage", bins: int = 30
) -> Figure:
    """Histogram of regret per instance for several methods, as outlines over common bins, means dashed.

    Arguments:
        regrets: by method, [B] (or several seeds, flattened); non-finite entries are left out and counted in
            the legend.
        unit: of the objective.
        bins: number of bins between the smallest and the 99.5 % quantile of all regrets; the last bin also
            holds what lies beyond.
    """
    kept = {m: finite(r) for m, r in regrets.items()}
    pooled = np.concatenate(list(kept.values())) if kept else np.empty(0)
    if not len(pooled):
        raise ValueError("there is no finite regret to draw")
    figure, (axes,) = new_figure(WIDTH, 3.5)
    low, high = min(float(pooled.min()), 0.0), float(np.quantile(pooled, 0.995))
    clipped = bool(pooled.max() > high)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    tones = colours(list(kept), baseline)
    for i, (method, values) in enumerate(kept.items()):
        if not len(values):
            continue
        failed = np.size(regrets[method]) - len(values)
        label = f"{method}, mean {format_number(float(values.mean()), 3)}" + (
            f", {failed} failed" if failed else ""
        )
        axes.hist(
            np.minimum(values, edges[-1]),
            bins=edges.tolist(),
            weights=np.full(len(values), 100.0 / len(values)),
            histtype="stepfilled" if method == baseline else "step",
            color=tones[method],
            alpha=0.45 if method == baseline else 1.0,
            linewidth=1.6,
            label=label,
            zorder=2 + i,
        )
        axes.axvline(float(values.mean()), color=tones[method], linestyle="--", linewidth=1.2, zorder=2 + i)
    axes.set_title("Regret per instance (means dashed)")
    axes.set_xlabel(with_unit("regret", unit) + (", last bin: and more" if clipped else ""))
    axes.set_ylabel("share of instances [%]")
    axes.set_xlim(edges[0], edges[-1])
    legend(axes)
    return figure


def regret_scatter(
    baseline_regret: Any, method_regret: Any, *, method: str, baseline: str = "two-stage", unit: str = ""
) -> Figure:
    """Regret of a method against the baseline, one point an instance, with the diagonal of equal regret.

    The numbers of points below (the method is better), above and on the diagonal stand in the picture.

    Arguments:
        baseline_regret, method_regret: [B], paired; pairs with a non-finite entry are left out.
    """
    base, other = np.ravel(np.asarray(baseline_regret, float)), np.ravel(np.asarray(method_regret, float))
    if base.shape != other.shape:
        raise ValueError(f"paired regrets must have one length, got {len(base)} and {len(other)}")
    good = np.isfinite(base) & np.isfinite(other)
    base, other = base[good], other[good]
    if not len(base):
        raise ValueError("there is no pair of finite regrets to draw")
    figure, (axes,) = new_figure(WIDTH, 4.6)
    top = float(max(base.max(), other.max()))
    bottom = min(float(min(base.min(), other.min())), 0.0)
    margin = 0.04 * (top - bottom) or 1.0
    near = 1e-9 * max(abs(top), abs(bottom))
    better, worse = int((other < base - near).sum()), int((other > base + near).sum())
    same = len(base) - better - worse
    axes.plot(
        [bottom, top], [bottom, top], color=INK, linewidth=1.0, linestyle="--", label="equal regret", zorder=1
    )
    axes.scatter(
        base,
        other,
        s=12 if len(base) > 300 else 22,
        color=PALETTE[0],
        alpha=0.35 if len(base) > 300 else 0.6,
        linewidths=0,
        zorder=2,
        rasterized=len(base) > MAX_VECTOR_MARKS,
    )
    axes.set_xlim(bottom - margin, top + margin)
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_aspect("equal")
    axes.text(0.03, 0.97, f"{method} worse: {worse}", transform=axes.transAxes, va="top", color=INK)
    axes.text(0.97, 0.03, f"{method} better: {better}", transform=axes.transAxes, ha="right", color=INK)
    axes.set_title(f"{method} against {baseline}" + (f" ({same} equal)" if same else ""))
    axes.set_xlabel(with_unit(f"regret of {baseline}", unit))
    axes.set_ylabel(with_unit(f"regret of {method}", unit))
    legend(axes, loc="upper left", bbox_to_anchor=(0.0, 0.94), borderaxespad=0.3)
    return figure


def training_curves(
    histories: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    *,
    loss: str = "loss",
    validation: str = "validation_regret",
    unit: str = "",
    baseline: str = "two-stage",
) -> Figure:
    """Loss and validation regret per epoch: every seed thin, the mean thick (over epochs all seeds reached).

    Validation regret of all methods shares one panel; losses of different methods are different quantities,
    so each has its own.

    Arguments:
        histories: by method, one dict a seed from key to one number per epoch.
        loss, validation: the keys to draw; a method without them is left out.
    Raises:
        ValueError: there is nothing to draw.
    """
    tones = colours(list(histories), baseline)

    def series(method: str, key: str) -> list[np.ndarray]:
        rows = [np.asarray(h[key], dtype=float) for h in histories[method] if key in h]
        return [r for r in rows if len(r)]

    judged = [m for m in histories if series(m, validation)]
    trained = [m for m in histories if series(m, loss)]
    count = bool(judged) + len(trained)
    if not count:
        raise ValueError(f"no history holds {loss!r} or {validation!r}: there are no training curves to draw")
    columns = min(2, count)
    rows = -(-count // columns)
    figure, panels = new_figure(WIDTH * (1.0 if columns == 1 else 1.9), 3.2 * rows, rows, columns)
    for axes in panels[count:]:
        axes.set_visible(False)
    if judged:
        axes = panels[0]
        for method in judged:
            _curves(axes, series(method, validation), tones[method], method)
        axes.set_title("Validation regret")
        axes.set_ylabel(with_unit(validation.replace("_", " "), unit))
        legend(axes)
    for axes, method in zip(panels[bool(judged) :], trained, strict=False):
        _curves(axes, series(method, loss), tones[method], method)
        axes.set_title(f"Training loss of {method}")
        axes.set_ylabel(loss.replace("_", " "))
    for axes in panels[:count]:
        axes.set_xlabel("epoch")
    return figure


def decision_bars(
    before: Any,
    after: Any,
    optimal: Any,
    *,
    labels: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    names: tuple[str, str, str] = ("two-stage", "decision-focused", "optimal"),
    ylabel: str = "decision",
) -> Figure:
    """Decisions of a few instances as grouped bars: before, after, optimal.

    Arguments:
        before, after, optimal: [K, n], K instances of n components.
        labels: of the n components; default their positions.
        titles: of the K panels.
    """
    stack = np.stack([np.atleast_2d(np.asarray(a, dtype=float)) for a in (before, after, optimal)])
    _, instances, n = stack.shape
    names_of = [str(s) for s in labels] if labels is not None else [str(j) for j in range(n)]
    # Many components get a row for each instance.
    columns = min(instances, 3) if n <= 12 else 1
    rows = -(-instances // columns)
    wide = WIDTH if instances == 1 and n <= 12 else WIDTH * 1.9
    figure, panels = new_figure(wide, (2.9 if n <= 12 else 2.3) * rows + 0.4, rows, columns, sharey=True)
    tones = (BASELINE_COLOUR, PALETTE[0], PALETTE[4])
    where = np.arange(n)
    for k, axes in enumerate(panels):
        if k >= instances:
            axes.set_visible(False)
            continue
        for j in range(3):
            axes.bar(
                where + (j - 1) * 0.27,
                stack[j, k],
                width=0.25,
                color=tones[j],
                hatch="///" if j == 2 and n <= 12 else "",
                edgecolor=INK if j == 2 else tones[j],
                linewidth=0.6 if j == 2 else 0.0,
                label=names[j],
            )
        axes.axhline(0.0, color=INK, linewidth=0.8)
        axes.set_title(titles[k] if titles is not None else f"instance {k}", fontsize=10)
        room = 26 if n <= 12 else 100  # characters that fit below one panel
        step = -(-n * (1 + max(map(len, names_of))) // room)
        axes.set_xticks(where[::step], names_of[::step])
        axes.grid(visible=False, axis="x")
        if k >= instances - columns:
            axes.set_xlabel("component")
        if k % columns == 0:
            axes.set_ylabel(ylabel)
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="outside upper center", ncols=3, frameon=False, fontsize=9, labelcolor=INK
    )
    return figure


def learning_curve(
    samples: Sequence[int],
    curves: Mapping[str, Any],
    *,
    ylabel: str = "mean regret",
    unit: str = "",
    baseline: str = "two-stage",
) -> Figure:
    """A metric against the number of training samples, mean over seeds with bars of ± one standard error.

    Arguments:
        samples: [K] training sizes.
        curves: by predictor or method, [K] or [S, K] values, one row a seed.
    """
    figure, (axes,) = new_figure(WIDTH, 3.6)
    tones = colours(list(curves), baseline)
    for i, (name, values) in enumerate(curves.items()):
        grid = np.atleast_2d(np.asarray(values, dtype=float))
        if grid.shape[1] != len(samples):
            raise ValueError(f"curve {name!r} has {grid.shape[1]} points for {len(samples)} training sizes")
        estimates = [mean_and_error(column) for column in grid.T]
        axes.errorbar(
            samples,
            [e.mean for e in estimates],
            yerr=[e.error if np.isfinite(e.error) else 0.0 for e in estimates],
            color=tones[name],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            capsize=3,
            linewidth=1.6,
            label=name,
        )
    if len(samples) > 1 and min(samples) > 0 and max(samples) >= 8 * min(samples):
        axes.set_xscale("log")
        axes.set_xticks(list(samples), [f"{s:,}".replace(",", "\u202f") for s in samples])
        axes.minorticks_off()
    several = any(np.ndim(v) > 1 and len(v) > 1 for v in curves.values())
    axes.set_title("Learning curve" + (" (bars: ± one standard error)" if several else ""))
    axes.set_xlabel("training samples")
    axes.set_ylabel(with_unit(ylabel, unit))
    legend(axes)
    return figure


def gain_by_seed(
    gains: Mapping[str, Any],
    intervals: Mapping[str, Interval] | None = None,
    *,
    baseline: str = "two-stage",
    unit: str = "%",
) -> Figure:
    """Paired gain over the baseline: a small dot for each seed, the mean with its interval; right is better.

    Arguments:
        gains: by method, [S].
        intervals: by method; one without bounds is drawn as a point.
    """
    methods = [m for m in gains if m != baseline]
    if not methods:
        raise ValueError("there is no method beside the baseline to draw")
    figure, (axes,) = new_figure(WIDTH, 1.5 + 0.5 * len(methods))
    tones = colours(methods, baseline)
    drawn = 0.0
    for row, method in enumerate(methods):
        values = finite(gains[method])
        # A fixed zigzag keeps equal gains apart without chance.
        offset = 0.16 * (np.arange(len(values)) % 3 - 1)
        axes.scatter(values, row + offset, s=16, color=tones[method], alpha=0.45, linewidths=0, zorder=2)
        interval = (intervals or {}).get(method)
        centre = (
            interval.estimate if interval is not None else float(values.mean()) if len(values) else np.nan
        )
        if interval is not None and interval.known:
            axes.plot([interval.low, interval.high], [row, row], color=tones[method], linewidth=3, zorder=3)
            drawn = interval.confidence
        axes.plot(
            [centre], [row], marker="D", markersize=7, color=tones[method], markeredgecolor=INK, zorder=4
        )
    axes.axvline(0.0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title("Gain by seed" + (f" (bar: {100 * drawn:.3g} % interval)" if drawn else ""))
    axes.set_xlabel(f"gain in regret over {baseline} [{unit}], right is better" if unit else "gain in regret")
    return figure


# ------------------------------------------------------------------------------------------------ helpers


def _curves(axes: Axes, rows: list[np.ndarray], colour: str, label: str) -> None:
    """All seeds thin, their mean thick."""
    for row in rows:
        epochs = np.arange(1, len(row) + 1)
        alone = len(rows) == 1
        axes.plot(
            epochs,
            row,
            color=colour,
            linewidth=2.0 if alone else 0.7,
            alpha=1.0 if alone else 0.4,
            label=label if alone else None,
            marker="o" if len(row) == 1 else None,
        )
    if len(rows) > 1:
        shortest = min(map(len, rows))
        mean = np.mean([r[:shortest] for r in rows], axis=0)
        axes.plot(
            np.arange(1, shortest + 1),
            mean,
            color=colour,
            linewidth=2.4,
            label=f"{label}, mean of {len(rows)}",
            marker="o" if shortest == 1 else None,
        )
