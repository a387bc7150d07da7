"""The data of a comparison: several methods, each trained and judged with the same seeds.

`compare` fills it; the terminal table, the verdicts in plain words and the report are read off it, so that
all of them show the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation.metrics import Evaluation
from decigrad.evaluation.statistics import (
    Estimate,
    Interval,
    check_confidence,
    format_estimate,
    format_number,
    mean_and_error,
    paired_bootstrap,
    paired_difference,
    percent_gain,
    signed,
    t_interval,
)

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Run:
    """One method trained and judged with one seed; `history` holds one number per epoch under each key."""

    seed: int
    evaluation: Evaluation
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds_fit: float = float("nan")


@dataclass(frozen=True)
class Verdict:
    """A sentence in plain words, and what it amounts to: "gain", "loss" or "tie" for the method."""

    text: str
    kind: str
    method: str


# Keys of `Evaluation.summary` (and "seconds_fit") shown by comparisons: heading, factor, better direction.
COLUMNS: dict[str, tuple[str, float, str]] = {
    "mean_regret": ("regret", 1.0, "min"),
    "normalized_regret": ("normalized regret, %", 100.0, "min"),
    "mse": ("prediction error (MSE)", 1.0, "min"),
    "spearman": ("rank agreement", 1.0, "max"),
    "correct_cheapest": ("correct cheapest, %", 100.0, "max"),
    "equal_decisions": ("optimal decisions, %", 100.0, "max"),
    "seconds_fit": ("fit time, s", 1.0, "min"),
}


@dataclass(frozen=True)
class ComparisonData:
    """Several methods, each trained and judged with the same seeds; all that a table or a report shows.

    Arguments:
        runs: by method, one `Run` a seed; every method has the same seeds in the same order, and the
            evaluations of one seed share their test instances.
        baseline: the method all others are paired with.
        settings: what was run, shown as a table (sizes, recipe, solver, versions).
        notes: remarks shown below the verdict.
        unit: of the objective, for labels.
        block: length of blocks of consecutive test instances that depend on each other (time series).
        confidence: of all intervals of one comparison *together*; with k methods beside the baseline each
            interval has level 1 − (1 − confidence)/k (Bonferroni), so that looking at the best is fair.
    Raises:
        ValueError: no baseline among the methods, seeds that differ, or test sets that do not match.
    """

    runs: dict[str, list[Run]]
    baseline: str = "two-stage"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unit: str = ""
    block: int = 1
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.baseline not in self.runs:
            raise ValueError(f"the baseline {self.baseline!r} is not among the methods {self.methods}")
        if not self.runs[self.baseline]:
            raise ValueError("a comparison needs at least one seed")
        for method, runs in self.runs.items():
            if [r.seed for r in runs] != self.seeds:
                theirs = [r.seed for r in runs]
                raise ValueError(f"{method!r} has seeds {theirs}, {self.baseline!r} has {self.seeds}")
            for run, base in zip(runs, self.runs[self.baseline], strict=True):
                if not _same_values(run.evaluation.optimal_value, base.evaluation.optimal_value):
                    raise ValueError(
                        f"{method!r} and {self.baseline!r} were judged on different test instances at seed "
                        f"{run.seed}: their optimal values differ, so they cannot be paired"
                    )

    @property
    def methods(self) -> list[str]:
        """Names, in the given order."""
        return list(self.runs)

    @property
    def challengers(self) -> list[str]:
        """All methods but the baseline."""
        return [m for m in self.runs if m != self.baseline]

    @property
    def seeds(self) -> list[int]:
        """Seeds, in the order of the runs."""
        return [r.seed for r in self.runs[self.baseline]]

    @cached_property
    def shared_test(self) -> bool:
        """Whether all seeds were judged on the same test instances."""
        values = [r.evaluation.optimal_value for r in self.runs[self.baseline]]
        return all(_same_values(v, values[0]) for v in values)

    @property
    def level(self) -> float:
        """Confidence of each single interval (Bonferroni over the challengers)."""
        return 1.0 - (1.0 - self.confidence) / max(1, len(self.challengers))

    def values(self, method: str, key: str) -> np.ndarray:
        """[S] one metric by seed; `key` of `Evaluation.summary`, or "seconds_fit"."""
        if key == "seconds_fit":
            return np.array([r.seconds_fit for r in self.runs[method]], dtype=float)
        return np.array([s.get(key, np.nan) for s in self._summaries[method]])

    @cached_property
    def _summaries(self) -> dict[str, list[dict[str, float]]]:
        return {m: [r.evaluation.summary() for r in runs] for m, runs in self.runs.items()}

    def estimate(self, method: str, key: str) -> Estimate:
        """Mean ± standard error over seeds of one metric."""
        return mean_and_error(self.values(method, key))

    def regrets(self, method: str) -> list[np.ndarray]:
        """Per seed, [B] regret (NaN where a sample failed)."""
        return [r.evaluation.regret for r in self.runs[method]]

    def failures(self, method: str) -> int:
        """Failed samples over all seeds."""
        return sum(len(r.evaluation.failed) for r in self.runs[method])

    def paired_regret(self, method: str) -> tuple[np.ndarray, np.ndarray]:
        """[S] mean regret of the baseline and of the method, over instances that failed for neither."""
        means = []
        for base, other in zip(self.regrets(self.baseline), self.regrets(method), strict=True):
            good = np.isfinite(base) & np.isfinite(other)
            means.append((base[good].mean(), other[good].mean()) if good.any() else (np.nan, np.nan))
        pairs = np.array(means)
        return pairs[:, 0], pairs[:, 1]

    def gain_by_seed(self, method: str) -> np.ndarray:
        """[S] percent gain in mean regret over the baseline; positive is better."""
        return np.asarray(percent_gain(*self.paired_regret(method)))

    def gain(self, method: str) -> Interval:
        """Percent gain in mean regret over the baseline, with an interval at `level`; positive is better.

        Seeds with their own test sets: the mean of the gains by seed and its t interval. One shared test set,
        or one seed: the gain of the means and a bootstrap over instances (and seeds).
        """
        return self._intervals[method][0]

    def difference(self, method: str) -> Interval:
        """Regret of the baseline minus regret of the method (positive: the method is better), as `gain`."""
        return self._intervals[method][1]

    @cached_property
    def _intervals(self) -> dict[str, tuple[Interval, Interval]]:
        return {m: (self._interval(m, "gain"), self._interval(m, "difference")) for m in self.challengers}

    def _interval(self, method: str, statistic: str) -> Interval:
        if self.shared_test:
            base, other = np.stack(self.regrets(self.baseline)), np.stack(self.regrets(method))
            return paired_bootstrap(base, other, statistic=statistic, confidence=self.level, block=self.block)
        if statistic == "gain":
            return t_interval(self.gain_by_seed(method), confidence=self.level)
        return paired_difference(*self.paired_regret(method), confidence=self.level)

    def verdict(self, method: str) -> Verdict:
        """Whether the method decides better than the baseline, in one plain sentence."""
        base, other = (mean_and_error(v).mean for v in self.paired_regret(method))
        if not np.isfinite(base):
            text = f"{method} cannot be compared with {self.baseline}: no instance was solved by both."
            return Verdict(text, "tie", method)
        change = f"mean regret {format_number(base)} → {format_number(other)}"
        if not np.any(self.gain_by_seed(method)):
            return Verdict(f"{method} and {self.baseline} decide equally well: {change}.", "tie", method)
        gain, difference = self.gain(method), self.difference(method)
        relative = gain.known and bool(np.isfinite(gain.estimate))
        interval = gain if relative else difference
        unit = "\u00a0%" if relative else (f"\u00a0{self.unit}" if self.unit else "")
        direction = "less" if interval.estimate > 0 else "more"
        amount = f"{format_number(abs(interval.estimate), 3)}{unit} {direction}"
        if interval.known:
            level = f"{100 * self.confidence:.4g}\u00a0% confidence interval of the gain"
            level += " (jointly for all methods)" if len(self.challengers) > 1 else ""
            ends = f"{level} {signed(interval.low)} to {signed(interval.high)}{unit}, {interval.method}"
        else:
            ends = f"no confidence interval: {interval.method}"
        clear = interval.excludes_zero and interval.estimate * difference.estimate > 0
        if clear:
            word, kind = ("beats", "gain") if interval.estimate > 0 else ("loses to", "loss")
            text = f"{method} {word} {self.baseline}: {change}, {amount} ({ends})."
            if len(self.seeds) == 1:
                text += " This is one seed; training on another draw of the data may turn out otherwise."
            return Verdict(text, kind, method)
        if not interval.known:
            why = "one run cannot tell a difference from chance"
        elif interval.excludes_zero:
            why = "the gain by seed and the difference of the means point in opposite directions"
        else:
            why = "the interval contains zero"
        pair = f"{method} and {self.baseline}"
        return Verdict(
            f"No clear difference between {pair}: {change}, {amount} ({ends}); {why}.", "tie", method
        )

    @property
    def best(self) -> str | None:
        """The challenger with the smallest mean regret; None where no challenger has a finite one."""
        scores = {m: self.estimate(m, "mean_regret").mean for m in self.challengers}
        finite = {m: score for m, score in scores.items() if np.isfinite(score)}
        return min(finite, key=lambda m: finite[m]) if finite else None

    def table(self) -> Table:
        """A rich table for the terminal: mean ± standard error over seeds, gain with its interval."""
        from rich.markup import escape
        from rich.table import Table

        count = len(self.seeds)
        title = f"{count} seed{'s' if count > 1 else ''}, mean" + (" ± standard error" if count > 1 else "")
        table = Table("method", title=title)
        # A terminal is narrower than a page.
        columns = {key: column for key, column in COLUMNS.items() if key != "equal_decisions"}
        for heading, _, _ in columns.values():
            table.add_column(heading, justify="right")
        table.add_column(f"gain over {escape(self.baseline)}, %", justify="right", no_wrap=True)
        if any(self.failures(m) for m in self.methods):
            table.add_column("failed", justify="right", style="red")
        for method in self.methods:
            row = [escape(method)]
            for key, (_, factor, _) in columns.items():
                e = self.estimate(method, key)
                row.append(format_estimate(factor * e.mean, factor * e.error))
            row.append("" if method == self.baseline else str(self.gain(method)).replace("[", r"\["))
            row.append(str(self.failures(method)))
            table.add_row(*row[: len(table.columns)])
        return table


def _same_values(a: np.ndarray, b: np.ndarray) -> bool:
    # A value may be NaN for one method only (a sample that failed before its optimum was known).
    if len(a) != len(b):
        return False
    both = np.isfinite(a) & np.isfinite(b)
    return bool(np.allclose(a[both], b[both], rtol=1e-6, atol=1e-9))
