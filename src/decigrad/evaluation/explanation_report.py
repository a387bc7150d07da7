"""The section "Why they differ" of a comparison: a sentence for each question, and a picture of its "
"answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation import heat_maps
from decigrad.evaluation._style import (
    BASELINE_COLOUR,
    INK,
    MAX_VECTOR_MARKS,
    PALETTE,
    WIDTH,
    legend,
    new_figure,
    with_unit,
)
from decigrad.evaluation.explanation import LISTED, Explanation
from decigrad.evaluation.report import Cell, Report
from decigrad.evaluation.statistics import format_number, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS, _MAX_COLUMNS = 20, 14


def add_explanation(report: Report, explanation: Explanation) -> None:
    """Sentences, the instances at either end, and the pictures that there are numbers for."""
    report.text("\n".join(f"- **{heading}**: {text}" for heading, text in explanation.sentences))
    _instances(report, explanation)
    for figure, caption in explanation_figures(explanation):
        report.figure(figure, caption)


def explanation_figures(e: Explanation) -> list[tuple[Figure, str]]:
    """Every picture with its caption."""
    found = []
    if len(e.order):
        found += [_sorted_gains(e), _errors(e)]
    if len(e.calibration[0].predicted) and len(e.calibration[1].predicted):
        found.append(_calibration(e))
    if e.weights is not None:
        found += [_weights(e), _weight_map(e)]
    if e.sensitivity is not None:
        found.append(_sensitivity(e))
    return found


def _instances(report: Report, e: Explanation) -> None:
    ends = [("gain", e.order[:LISTED])] + (
        [("loss", e.order[::-1][:LISTED])] if len(e.order) > LISTED else []
    )
    rows: list[list[Any]] = []
    for word, positions in ends:
        for i in positions:
            gain = float(e.gains[i])
            if (gain > 0) != (word == "gain") or gain == 0:
                continue
            before, after = (float(r[i]) for r in e.regrets)
            errors = [Cell(format_number(float(x[i]), 3), float(x[i])) for x in e.errors]
            rows.append([str(i), Cell(signed(gain), gain), before, after, *errors])
    if not rows:
        return
    unit = f", {e.unit}" if e.unit else ""
    heads = ["instance", f"regret saved{unit}"]
    heads += [f"{what} of {name}" for what in ("regret", "error") for name in (e.baseline, e.method)]
    report.table(
        heads,
        rows,
        caption="The largest gains and losses; regret of both and prediction errors (in standard deviations) "
        "are those of the first seed.",
    )


def _sorted_gains(e: Explanation) -> tuple[Figure, str]:
    gains = e.gains[e.order]
    figure, (axes,) = new_figure(WIDTH, 3.3)
    where = 100.0 * (np.arange(len(gains)) + 0.5) / len(gains)
    width = 100.0 / len(gains)
    for sign, colour, word in ((1, PALETTE[0], "gains"), (-1, PALETTE[1], "loses")):
        kept = sign * gains > 0
        label = f"{word} ({100 * kept.mean():.0f} % of instances)"
        if len(gains) > 300:
            axes.fill_between(
                where,
                np.where(kept, gains, 0.0),
                step="mid",
                color=colour,
                alpha=0.8,
                linewidth=0,
                label=label,
            )
        else:
            axes.bar(where[kept], gains[kept], width, color=colour, alpha=0.8, label=label)
    axes.axhline(0.0, color=INK, linewidth=1.0)
    axes.set_title(f"Regret saved by {e.method}, sorted")
    axes.set_xlabel("instances, from the largest gain [%]")
    axes.set_ylabel(with_unit("regret saved", e.unit))
    legend(axes)
    return (
        figure,
        f"Which instances gain and lose against {e.baseline}, from the largest gain to the largest loss.",
    )


def _errors(e: Explanation) -> tuple[Figure, str]:
    figure, (axes,) = new_figure(WIDTH, 3.6)
    pairs = zip((e.baseline, e.method), e.errors, e.regrets, (BASELINE_COLOUR, PALETTE[0]), "os", strict=True)
    for name, error, regret, colour, marker in pairs:
        good = np.isfinite(error) & np.isfinite(regret)
        axes.scatter(error[good], regret[good], s=14, color=colour, alpha=0.45, linewidths=0, marker=marker,
                     label=name, rasterized=good.sum() > MAX_VECTOR_MARKS // 2)  # fmt: skip
        if good.any():
            axes.plot(error[good].mean(), regret[good].mean(), marker=marker, markersize=10, color=colour,
                      markeredgecolor=INK, linestyle="", zorder=5)  # fmt: skip
    axes.set_title("Regret against prediction error")
    axes.set_xlabel("error of an instance [standard deviations]")
    axes.set_ylabel(with_unit("regret", e.unit))
    legend(axes)
    return (
        figure,
        "A point is an instance, the large marks are the means: a worse prediction may decide better.",
    )


def _calibration(e: Explanation) -> tuple[Figure, str]:
    figure, (axes,) = new_figure(WIDTH, 3.6)
    ends = np.array(
        [min(c.predicted.min() for c in e.calibration), max(c.predicted.max() for c in e.calibration)]
    )
    axes.plot(ends, ends, color=INK, linestyle="--", linewidth=1.0, label="right on average")
    names = zip((e.baseline, e.method), e.calibration, (BASELINE_COLOUR, PALETTE[0]), "os", strict=True)
    for name, c, colour, marker in names:
        axes.plot(c.predicted, c.true, color=colour, marker=marker, linewidth=1.5,
                  label=f"{name}, slope {format_number(c.slope, 2)}")  # fmt: skip
    axes.set_title("Calibration")
    axes.set_xlabel("predicted [standard deviations from the mean target]")
    axes.set_ylabel("true [the same]")
    legend(axes)
    return figure, "Means of true values in ten bins of predicted ones, all predicted entries together."


def _weights(e: Explanation) -> tuple[Figure, str]:
    w = e.weights
    assert w is not None
    order = np.argsort(-w.by_feature, kind="stable")[:_MAX_ROWS]
    figure, (axes,) = new_figure(WIDTH, 1.7 + 0.28 * len(order))
    axes.barh(range(len(order)), w.by_feature[order], 0.65, color=PALETTE[0], alpha=0.85, label="change")
    size = np.sqrt((w.before**2).mean(axis=1))
    axes.plot(size[order], range(len(order)), marker="|", markersize=12, markeredgewidth=2, linestyle="",
              color=BASELINE_COLOUR, label=f"weight of {e.baseline}")  # fmt: skip
    axes.set_yticks(range(len(order)), [w.features[j] for j in order])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Weight change by feature" + ("" if w.exact else ", linear part"))
    axes.set_xlabel("root mean square over outputs [standardized]")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK
    )
    more = (
        f" The {len(order)} of {len(w.features)} features that changed most."
        if len(order) < len(w.features)
        else ""
    )
    return figure, (
        f"How much the weight of each feature moved from {e.baseline} to {e.method}, beside its size before: "
        f"standard deviations of a target per standard deviation of the feature.{more}"
    )


def _weight_map(e: Explanation) -> tuple[Figure, str]:
    w = e.weights
    assert w is not None
    change = np.abs(w.after - w.before)
    rows, columns = _largest(change.max(axis=1), _MAX_ROWS), _largest(change.max(axis=0), _MAX_COLUMNS)
    figure = heat_maps.weight_difference(
        w.before[np.ix_(rows, columns)],
        w.after[np.ix_(rows, columns)],
        rows=[w.features[j] for j in rows],
        columns=[w.outputs[j] for j in columns],
        names=(e.baseline, e.method),
    )
    return (
        figure,
        f"Standardized weights of {e.method} minus those of {e.baseline}: red where a feature raises more.",
    )


def _sensitivity(e: Explanation) -> tuple[Figure, str]:
    s = e.sensitivity
    assert s is not None
    size = np.abs(s.matrix)
    rows, columns = _largest(size.max(axis=1), _MAX_ROWS), _largest(size.max(axis=0), _MAX_COLUMNS)
    figure = heat_maps.sensitivity_heatmap(
        s.matrix[np.ix_(rows, columns)],
        variables=[s.variables[j] for j in rows],
        parameters=[s.parameters[j] for j in columns],
        title=f"dx*/dĉ at instance {s.instance}",
    )
    return figure, (
        f"How the decision of {e.method} answers its prediction at the instance with the largest gain: "
        "red where "
        "x* rises with the parameter, blue where it falls."
    )


def _largest(sizes: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` largest, in their own order."""
    return np.sort(np.argsort(-sizes, kind="stable")[:count])
