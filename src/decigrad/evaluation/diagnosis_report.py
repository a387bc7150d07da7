"""The page of a diagnosis: verdict, the findings in words with a picture each, and how to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from decigrad.evaluation._rules import CLEAR, OUTLOOKS, WORTH
from decigrad.evaluation._style import (
    BASELINE_COLOUR,
    INK,
    PALETTE,
    WIDTH,
    finite,
    legend,
    new_figure,
    with_unit,
)
from decigrad.evaluation.report import Report
from decigrad.evaluation.statistics import format_estimate, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from decigrad.evaluation.findings import Diagnosis

_KINDS = {"gain": "gain", "none": "tie", "unclear": "tie"}

_READING = f"""
- **Held out**: every number is of samples that the predictor was not trained on. ± is one standard error over
  samples; it leaves out that the folds share training samples.
- **Noise floor**: the regret of deciding by the flexible predictions, moved towards the truth by the part of
  their
  error that is *not* noise. Rough truths, few samples and many features make noise look larger than it is:
  then
  the floor is too high, and what is to gain too low.
- **A perfect predictor** knows the expected parameters for the features. Two-stage, a flexible predictor and
  decision-focused training all lie between two-stage and it.
- **A flexible predictor** that is clearly better proves that the chosen one misses something. That is where
  decision-focused training gains: it spends what the predictor has where decisions depend on it.
- **The verdict** counts differences beyond {CLEAR:g} standard errors, and gains of more than {100 * WORTH:g}
  % of the
  two-stage regret. To know rather than to expect: train, by `compare`.
"""


def build_diagnosis_report(diagnosis: Diagnosis, title: str, *, date: str | None = None) -> Report:
    """The page of a diagnosis, not yet written, for further blocks."""
    count = len(diagnosis.weights)
    subtitle = f"{count} samples, each held out in one of {diagnosis.folds} folds; {diagnosis.predictor}"
    report = Report(title, subtitle=subtitle, date=date)
    report.section("Verdict")
    word = OUTLOOKS[diagnosis.outlook]
    text = diagnosis.verdict.removeprefix(word).strip()
    report.verdict(text, _KINDS[diagnosis.outlook], word=word)
    if diagnosis.failed:
        report.text(f"**{diagnosis.failed} samples** could not be decided and are left out of all numbers.")
    report.section("Findings")
    report.text("\n".join(f"- **{f.name}: {f.shown}.** {f.text}" for f in diagnosis.findings))
    report.section("Pictures")
    for figure, caption in diagnosis_figures(diagnosis):
        report.figure(figure, caption)
    report.section("How to read it").text(_READING)
    return report


def diagnosis_figures(diagnosis: Diagnosis) -> list[tuple[Figure, str]]:
    """Every picture with its caption, which also tells what is seen."""
    found = [_regrets(diagnosis), _savings(diagnosis), _moves(diagnosis)]
    if len(diagnosis.noise.distances):
        found.append(_noise(diagnosis))
    if len(diagnosis.learning.sizes):
        found.append(_learning(diagnosis))
    return found


def _regrets(d: Diagnosis) -> tuple[Figure, str]:
    names = {
        "constant": "mean of the targets",
        "two-stage": "two-stage",
        "corrected": "two-stage, corrected",
        "flexible": "flexible",
        "floor": "noise floor",
    }
    found = {label: d.regret(name) for name, label in names.items()}
    found = {label: e for label, e in found.items() if np.isfinite(e.mean)}
    figure, (axes,) = new_figure(WIDTH, 1.3 + 0.45 * len(found))
    for row, (label, e) in enumerate(found.items()):
        colour = BASELINE_COLOUR if label == "two-stage" else PALETTE[0]
        reach = e.error if np.isfinite(e.error) else 0.0
        hatch = "///" if label == "noise floor" else ""
        axes.barh(row, e.mean, 0.6, xerr=reach, color=colour, alpha=0.75, hatch=hatch, edgecolor=INK,
                  linewidth=0.6, error_kw={"ecolor": INK, "capsize": 3, "linewidth": 1.2})  # fmt: skip
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Held-out regret by prediction")
    axes.set_xlabel(with_unit("mean regret", d.unit) + " (line: ± one standard error)")
    said = ", ".join(f"{label} {format_estimate(e.mean, e.error)}" for label, e in found.items())
    return figure, f"Mean regret of deciding by each prediction: {said}."


def _savings(d: Diagnosis) -> tuple[Figure, str]:
    found = {
        "a perfect predictor": d.saving("two-stage", "floor"),
        "a flexible predictor": d.saving("two-stage", "flexible"),
        "a constant correction": d.saving("two-stage", "corrected"),
        "more samples": d.learning.excess,
    }
    found = {label: e for label, e in found.items() if np.isfinite(e.mean)}
    figure, (axes,) = new_figure(WIDTH, 1.5 + 0.45 * len(found))
    for row, (name, e) in enumerate(found.items()):
        reach = CLEAR * e.error if np.isfinite(e.error) else 0.0
        label = f"saving ± {CLEAR:g} standard errors" if row == 0 else None
        axes.errorbar(e.mean, row, xerr=reach, color=PALETTE[0], marker="D", markersize=7, capsize=4,
                      linewidth=2.0, label=label)  # fmt: skip
        axes.text(e.mean, row - 0.22, name, ha="center", fontsize=8, color=INK)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    worth = WORTH * d.regret("two-stage").mean
    axes.axvline(
        worth, color=PALETTE[1], linestyle="--", linewidth=1.2, label=f"{100 * WORTH:g} % of two-stage"
    )
    axes.set_yticks([])
    axes.set_ylim(len(found) - 0.5, -0.7)
    axes.set_title("What would lower the regret of two-stage")
    axes.set_xlabel(with_unit("saving in mean regret", d.unit) + ", right is better")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK
    )
    said = ", ".join(f"{label} {format_estimate(e.mean, e.error)}" for label, e in found.items())
    return figure, f"What each would save, paired by sample: {said}."


def _moves(d: Diagnosis) -> tuple[Figure, str]:
    moved, changed = finite(d.moved), 100.0 * finite(d.changed)
    figure, (axes,) = new_figure(WIDTH, 3.3)
    top = float(np.quantile(moved, 0.99)) if len(moved) else 1.0
    edges = np.linspace(0.0, top if top > 0 else 1.0, 25)
    axes.hist(
        np.minimum(moved, edges[-1]),
        bins=edges.tolist(),
        weights=np.full(len(moved), 100.0 / max(len(moved), 1)),
        color=PALETTE[0],
        alpha=0.75,
        label="samples",
    )
    mean = float(moved.mean()) if len(moved) else 0.0
    axes.axvline(mean, color=INK, linestyle="--", linewidth=1.2, label=f"mean {format_number(mean, 3)}")
    axes.set_title("Cost of moving a prediction by its own error")
    axes.set_xlabel(with_unit("mean cost of a move, by sample", d.unit) + " (last bin: and more)")
    axes.set_ylabel("share of samples [%]")
    legend(axes)
    share = format_number(float(changed.mean()), 3) if len(changed) else "–"
    return (
        figure,
        f"Within the prediction's error {share} % of decisions change, at {format_number(mean, 3)} each.",
    )


def _noise(d: Diagnosis) -> tuple[Figure, str]:
    noise = d.noise
    figure, (axes,) = new_figure(WIDTH, 3.3)
    reach = np.linspace(0.0, 1.05 * float(noise.distances.max()), 2)
    axes.scatter(
        noise.distances, 100 * noise.differences, s=28, color=PALETTE[0], label="k-th neighbours, k = 1 … 10"
    )
    axes.plot(
        reach, 100 * (noise.share.mean + noise.slope * reach), color=PALETTE[1], linewidth=1.5, label="line"
    )
    axes.errorbar(
        0.0, 100 * noise.share.mean, yerr=100 * noise.share.error if np.isfinite(noise.share.error) else 0.0,
        color=INK, marker="D", markersize=7, capsize=4, label="noise (± one standard error)",
    )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.set_title("How much of the error is noise")
    axes.set_xlabel("squared distance of neighbours [standardized features]")
    axes.set_ylabel("half squared difference [% of error]")
    legend(axes, loc="lower right")
    said = format_estimate(100 * noise.share.mean, 100 * noise.share.error)
    return figure, (
        "Errors of neighbouring samples: if they still differ at distance zero, features cannot tell them "
        f"apart. Noise: {said} % of the flexible predictor's squared error."
    )


def _learning(d: Diagnosis) -> tuple[Figure, str]:
    curve = d.learning
    figure, (axes,) = new_figure(WIDTH, 3.3)
    errors = [e.error if np.isfinite(e.error) else 0.0 for e in curve.regret]
    axes.errorbar(curve.sizes, [e.mean for e in curve.regret], yerr=errors, color=BASELINE_COLOUR, marker="o",
                  capsize=3, linestyle="", label="two-stage (± one standard error)")  # fmt: skip
    if np.isfinite(curve.slope):
        grid = np.geomspace(curve.sizes[0], 2 * curve.sizes[-1], 60)
        power = "n^(−1/2)" if curve.rate == 0.5 else "1/n"
        axes.plot(grid, curve(grid), color=PALETTE[0], linewidth=1.6, label=f"fit a + b {power}")
        axes.axhline(
            curve.asymptote.mean, color=INK, linestyle="--", linewidth=1.0, label="a, with any number"
        )
    axes.set_xscale("log")
    axes.set_xticks(list(curve.sizes), [f"{int(s)}" for s in curve.sizes])
    axes.minorticks_off()
    axes.set_title("Regret against training samples")
    axes.set_xlabel("training samples")
    axes.set_ylabel(with_unit("held-out mean regret", d.unit))
    legend(axes)
    return figure, curve.text
