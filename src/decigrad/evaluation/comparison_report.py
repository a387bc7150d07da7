"""The report of a comparison: verdict first, then the table, the pictures, what was run, definitions."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.evaluation import figures
from decigrad.evaluation.aspects import component_labels
from decigrad.evaluation.comparison import COLUMNS, ComparisonData
from decigrad.evaluation.explanation import Explanation, explain
from decigrad.evaluation.explanation_report import add_explanation
from decigrad.evaluation.report import Cell, Report, package_version
from decigrad.evaluation.statistics import Interval, format_estimate, format_number, signed

_MAX_SCATTERS = 5
_MAX_COMPONENTS = 48

_DEFINITIONS = """
- **Regret** of an instance: the true cost of the decision made from the prediction, minus the cost of the
  best decision had the true parameters been known. Zero is perfect.
- **Normalized regret**: sum of regrets over sum of absolute optimal values (the ratio of sums of Elmachtoub
  and Grigas, and of PyEPO).
- **Prediction error**: mean squared error of the predicted parameters. A smaller one need not mean better
  decisions.
- **Rank agreement**: Spearman's correlation between predicted and true parameters, per instance, averaged;
  1 means the right order.
- **Correct cheapest**: share of instances whose best component was predicted to be the best (ties count in
  proportion).
- **Optimal decisions**: share of instances whose decision equals the optimal one within 1e-6.
- **Gain**: how much less regret than the baseline, in percent of the baseline's; negative means more regret.
- **± and intervals**: ± is one standard error over seeds. Intervals are for paired differences: both methods
  see the same data, so what the data do to both cancels. They cover what the seeds and the test instances
  vary, and nothing else.
"""


def comparison_report(
    data: ComparisonData,
    path: str | Path,
    title: str,
    *,
    date: str | None = None,
    explanation: Explanation | None = None,
) -> Path:
    """Lay out a whole comparison and write it to `path`.

    Arguments:
        data: what `compare` measured.
        title: of the page.
        date: as for `Report`.
        explanation: why the best method differs; default: what `data` alone tell.
    Returns:
        The path written.
    Raises:
        OSError: as `Report.write`.
    """
    return build_comparison_report(data, title, date=date, explanation=explanation).write(path)


def build_comparison_report(
    data: ComparisonData, title: str, *, date: str | None = None, explanation: Explanation | None = None
) -> Report:
    """The same report, not yet written, for further blocks."""
    seeds = len(data.seeds)
    instances = data.runs[data.baseline][0].evaluation.num_instances
    subtitle = (
        f"{len(data.methods)} methods, {_count(seeds, 'seed')}, {_count(instances, 'test instance')}"
        + (" shared by all seeds" if data.shared_test and seeds > 1 else " a seed" if seeds > 1 else "")
    )
    report = Report(title, subtitle=subtitle, date=date)
    _verdicts(report, data)
    report.section("Results")
    _results_table(report, data)
    _paired_table(report, data)
    _pictures(report, data)
    _differences(report, data, explanation)
    report.section("What was run")
    _settings(report, data)
    report.section("Definitions").text(_DEFINITIONS)
    return report


def _verdicts(report: Report, data: ComparisonData) -> None:
    report.section("Verdict")
    best = data.best
    if best is None:
        report.text(f"Only {data.baseline} has results; there is nothing to compare it with.")
    else:
        verdicts = {m: data.verdict(m) for m in data.challengers}
        report.verdict(verdicts[best].text, verdicts[best].kind)
        others = [m for m in data.challengers if m != best]
        if others:
            base, score = (
                data.estimate(data.baseline, "mean_regret").mean,
                data.estimate(best, "mean_regret").mean,
            )
            lead = f"**{best}** has the smallest mean regret of the {len(data.challengers)} methods tried"
            lead += "." if score <= base else f", and it is still larger than that of {data.baseline}."
            report.text(f"{lead} The others:")
            for method in others:
                report.verdict(verdicts[method].text, verdicts[method].kind)
        if all(v.kind == "loss" for v in verdicts.values()) and len(data.seeds) > 1:
            report.text(f"**Decision-focused training lost here: use {data.baseline}.**")
        elif all(v.kind == "tie" for v in verdicts.values()):
            report.text(
                "Nothing here shows that decision-focused training pays on this problem; more test instances "
                "or seeds would narrow the intervals."
            )
    failures = {m: data.failures(m) for m in data.methods if data.failures(m)}
    if failures:
        listed = ", ".join(f"{m}: {n}" for m, n in failures.items())
        report.text(
            f"**Failed instances** ({listed}, over all seeds) have no decision and no regret. They are left "
            "out of averages, and of paired figures if they failed for either method, so a method that fails "
            "where it is hard looks better than it is."
        )
    if data.notes:
        report.text("\n".join(f"- {' '.join(note.split())}" for note in data.notes))


def _results_table(report: Report, data: ComparisonData) -> None:
    headings = {key: _heading(data, key) for key in COLUMNS}
    failed = any(data.failures(m) for m in data.methods)
    rows: list[list[Any]] = []
    for method in data.methods:
        row: list[Any] = [method]
        for key, (_, factor, _) in COLUMNS.items():
            e = data.estimate(method, key)
            row.append(Cell(format_estimate(factor * e.mean, factor * e.error), factor * e.mean))
        rows.append([*row, data.failures(method)] if failed else row)
    best = {headings[k]: direction for k, (_, _, direction) in COLUMNS.items() if k != "seconds_fit"}
    spread = "mean ± standard error over seeds" if len(data.seeds) > 1 else "one seed, so no spread"
    header = ["method", *headings.values()] + (["failed"] if failed else [])
    report.table(
        header,
        rows,
        caption=f"All methods, {spread}. ★ best of its column, chance not considered.",
        best=best,
    )


def _paired_table(report: Report, data: ComparisonData) -> None:
    if not data.challengers:
        return
    rows: list[list[Any]] = []
    for method in data.challengers:
        gain, difference = data.gain(method), data.difference(method)
        by_seed = data.gain_by_seed(method)
        wins = f"{int((by_seed > 0).sum())} of {int(np.isfinite(by_seed).sum())}"
        rows.append(
            [
                method,
                Cell(signed(gain.estimate), gain.estimate),
                _bounds(gain),
                Cell(signed(difference.estimate), difference.estimate),
                _bounds(difference),
                wins,
                gain.method,
            ]
        )
    header = [
        "method",
        "gain, %",
        "interval, %",
        "regret saved" + (f", {data.unit}" if data.unit else ""),
        "interval",
    ]
    together = ""
    if len(data.challengers) > 1:
        together = f", each at {100 * data.level:.4g} % so that all hold together (Bonferroni)"
    report.table(
        [*header, "seeds better", "interval from"],
        rows,
        caption=f"Paired with {data.baseline}: positive is better. "
        f"{100 * data.confidence:.4g} % intervals{together}.",
    )


def _pictures(report: Report, data: ComparisonData) -> None:
    pooled = {m: np.concatenate(data.regrets(m)) for m in data.methods}
    solved = [m for m in data.methods if np.isfinite(pooled[m]).any()]
    if not solved:
        return
    report.section("Pictures")
    if data.challengers:
        gains = {m: data.gain_by_seed(m) for m in data.challengers}
        if any(np.isfinite(g).any() for g in gains.values()):
            intervals = {m: data.gain(m) for m in data.challengers}
            report.figure(
                figures.gain_by_seed(gains, intervals, baseline=data.baseline),
                f"Gain over {data.baseline}: dots are seeds, diamond and bar the estimate and interval.",
                "; ".join(f"{m}: gain {intervals[m]} percent" for m in data.challengers),
            )
    report.figure(
        figures.regret_distribution({m: pooled[m] for m in solved}, unit=data.unit, baseline=data.baseline),
        "How regret is spread over instances, all seeds together.",
        "Histogram of regret. "
        + "; ".join(f"{m}: mean {format_number(float(np.nanmean(pooled[m])))}" for m in solved),
    )
    for method in data.challengers[:_MAX_SCATTERS]:
        good = np.isfinite(pooled[method]) & np.isfinite(pooled[data.baseline])
        if not good.any():
            continue
        better = int((pooled[method][good] < pooled[data.baseline][good]).sum())
        report.figure(
            figures.regret_scatter(
                pooled[data.baseline], pooled[method], method=method, baseline=data.baseline, unit=data.unit
            ),
            f"A point is a test instance; below the diagonal {method} decides better than {data.baseline}.",
            f"{method} has the smaller regret on {better} of {int(good.sum())} instances.",
        )
    histories = {m: [r.history for r in data.runs[m]] for m in data.methods}
    if any(h.get("loss") or h.get("validation_regret") for rows in histories.values() for h in rows):
        report.figure(
            figures.training_curves(histories, unit=data.unit, baseline=data.baseline),
            "Training, epoch by epoch: seeds thin, their mean thick.",
            "Loss and validation regret per epoch.",
        )


def _differences(report: Report, data: ComparisonData, explanation: Explanation | None) -> None:
    """Why the best method differs from the baseline."""
    solved = [m for m in data.methods if any(np.isfinite(r).any() for r in data.regrets(m))]
    if data.best is None or data.baseline not in solved:
        return
    if explanation is None:
        explanation = explain(data)
    report.section("Why they differ")
    report.text(f"**{explanation.method}** beside **{explanation.baseline}**, on the test instances.")
    add_explanation(report, explanation)
    _decisions(report, data)


def _decisions(report: Report, data: ComparisonData) -> None:
    """Bars for the instances with the largest gain, the median and the largest loss: not the best alone."""
    if data.best is None:
        return
    ours, base = data.runs[data.best][0].evaluation, data.runs[data.baseline][0].evaluation
    names = sorted(ours.decisions.keys() & base.decisions.keys() & ours.optimal_decisions.keys())
    good = np.flatnonzero(np.isfinite(ours.regret) & np.isfinite(base.regret))
    if not names or not len(good):
        return
    order = good[np.argsort((base.regret - ours.regret)[good], kind="stable")]
    chosen = list(dict.fromkeys(int(i) for i in (order[-1], order[len(order) // 2], order[0])))
    words = [
        "largest gain",
        "median gain",
        "largest loss" if ours.regret[order[0]] > base.regret[order[0]] else "least gain",
    ]
    words = words[: len(chosen)]

    def flat(group: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([group[k][chosen].reshape(len(chosen), -1) for k in names], axis=1)

    before, after, optimal = flat(base.decisions), flat(ours.decisions), flat(ours.optimal_decisions)
    labels = component_labels({k: ours.decisions[k].shape[1:] for k in names})
    more = ""
    if len(labels) > _MAX_COMPONENTS:
        # Where the three agree there is nothing to see: keep the components that differ most.
        spread = (np.ptp(np.stack([before, after, optimal]), axis=0)).max(axis=0)
        keep = np.sort(np.argsort(-spread, kind="stable")[:_MAX_COMPONENTS])
        before, after, optimal = before[:, keep], after[:, keep], optimal[:, keep]
        more = f" The {_MAX_COMPONENTS} of {len(labels)} components that differ most."
        labels = [labels[k] for k in keep]
    titles = []
    for word, i in zip(words, chosen, strict=True):
        from_, to = (format_number(float(e.regret[i]), 3) for e in (base, ours))
        titles.append(f"{word} (instance {i})\nregret {from_} → {to}")
    report.figure(
        figures.decision_bars(
            before, after, optimal, labels=labels, titles=titles, names=(data.baseline, data.best, "optimal")
        ),
        f"Decisions of {data.baseline} and {data.best} beside the optimal ones, first seed.{more}",
        "Bars of decisions. " + "; ".join(t.replace("\n", ", ") for t in titles),
    )


def _settings(report: Report, data: ComparisonData) -> None:
    rows = [[str(k), str(v)] for k, v in data.settings.items()]
    shown = ", ".join(map(str, data.seeds[:12])) + (", …" if len(data.seeds) > 12 else "")
    known = {str(k).lower() for k in data.settings}
    extra = {
        "seeds": shown,
        "baseline": data.baseline,
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{p} {package_version(p)}" for p in ("decigrad", "jax", "numpy", "optax")]
        ),
    }
    rows += [[k, v] for k, v in extra.items() if k not in known]
    report.table(["setting", "value"], rows)


def _heading(data: ComparisonData, key: str) -> str:
    text = COLUMNS[key][0]
    return f"{text}, {data.unit}" if key == "mean_regret" and data.unit else text


def _bounds(interval: Interval) -> str:
    if not interval.known:
        return "–"
    return f"{signed(interval.low)} to {signed(interval.high)}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
