"""How good a predictor is, judged by the decisions it leads to: pure functions of arrays.

Everything is stated for minimization: `cost` is what the decision costs under the true parameters, and a
smaller cost is better. A model under `maximize` enters with its costs negated; its regret is the same number.

A sample is *failed* when its regret is not finite (no decision, or no optimal value to compare it with).
Failed samples are left out of averages, because there is no number to average, and are always counted beside
them: a method with failures is not comparable with one without, and tables and reports say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation.prediction import (
    PredictionError,
    RankAgreement,
    correct_cheapest,
    paired,
    prediction_error,
    rank_agreement,
)

if TYPE_CHECKING:
    from rich.table import Table

QUANTILES = (0.5, 0.9, 0.95)
EQUAL_TOLERANCE = 1e-6


# ------------------------------------------------------------------------------------------------- regret


@dataclass(frozen=True)
class RegretSummary:
    """Regret over a test set: see `regret_summary` for the formulas."""

    mean: float
    standard_error: float
    normalized: float
    maximum: float
    quantiles: dict[float, float]
    count: int
    failed: int


def regret_summary(
    cost: Any, optimal: Any, *, scale: Any = None, quantiles: Sequence[float] = QUANTILES
) -> RegretSummary:
    """Summarize regret, the extra cost of deciding by the prediction instead of by the truth.

        regret_i = cost_i − optimal_i
        mean = (1/N) Σ regret_i          normalized = Σ regret_i / Σ |scale_i|

    over the N samples whose regret is finite. The ratio of sums is the normalized SPO loss of Elmachtoub
    and Grigas (they divide by Σ z*(c_i), positive in their experiments) and PyEPO's `metric.regret` (which
    divides by Σ |z*(c_i)| + 1e-7). It is not the mean of per-sample ratios, which explodes at z* near zero.

    Arguments:
        cost: [B] true cost of the decision made from the prediction.
        optimal: [B] cost of the optimal decision (the true parameters known).
        scale: [B] what normalizes; default: `optimal`.
        quantiles: levels in [0, 1], by linear interpolation.
    Returns:
        `RegretSummary`; every statistic is NaN when no sample is finite, `normalized` also when Σ |scale| = 0
        with positive regret. `standard_error` is over samples (NaN for one).
    Raises:
        ValueError: lengths differ, or arrays are not one-dimensional.

    >>> regret_summary([3.0, 5.0], [2.0, 4.0]).normalized
    0.3333333333333333

    Source: A. N. Elmachtoub, P. Grigas, Smart "predict, then optimize", Management Science 68 (2022),
    doi:10.1287/mnsc.2020.3922.
    """
    cost, optimal = _vector(cost, "cost"), _vector(optimal, "optimal")
    scale = optimal if scale is None else _vector(scale, "scale")
    if not len(cost) == len(optimal) == len(scale):
        raise ValueError(f"lengths differ: cost {len(cost)}, optimal {len(optimal)}, scale {len(scale)}")
    regret = cost - optimal
    good = np.isfinite(regret) & np.isfinite(scale)
    kept = regret[good]
    if not len(kept):
        nan, b = float("nan"), len(regret)
        return RegretSummary(nan, nan, nan, nan, dict.fromkeys(quantiles, nan), count=b, failed=b)
    return RegretSummary(
        mean=float(kept.mean()),
        standard_error=float(kept.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else np.nan,
        normalized=_ratio(kept.sum(), np.abs(scale[good]).sum()),
        maximum=float(kept.max()),
        quantiles={q: float(np.quantile(kept, q)) for q in quantiles},
        count=len(regret),
        failed=int(len(regret) - good.sum()),
    )


def equal_decisions(decisions: Any, optimal: Any, *, tolerance: float = EQUAL_TOLERANCE) -> np.ndarray:
    """Which decisions equal the optimal one: |x − x*| ≤ tolerance · max(1, ‖x*‖∞) in every component.

    Arguments:
        decisions, optimal: [B, ...] arrays, or dicts of them by variable name (then all must agree).
        tolerance: absolute up to ‖x*‖∞ = 1, relative above.
    Returns:
        [B] float: 1 equal, 0 different, NaN where a decision is missing (not finite).
    """
    if isinstance(decisions, Mapping):
        if decisions.keys() != optimal.keys():
            raise ValueError(f"decisions name {sorted(decisions)}, the optimal ones {sorted(optimal)}")
        parts = [equal_decisions(decisions[k], optimal[k], tolerance=tolerance) for k in decisions]
        return np.min(parts, axis=0) if parts else np.empty(0)
    x, best = paired(decisions, optimal, "decisions", "optimal")
    reach = tolerance * np.maximum(1.0, np.abs(best).max(axis=1, initial=0.0))
    equal = (np.abs(x - best) <= reach[:, None]).all(axis=1).astype(float)
    equal[~(np.isfinite(x).all(axis=1) & np.isfinite(best).all(axis=1))] = np.nan
    return equal


# --------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Evaluation:
    """One predictor judged on one test set of B instances.

    Arguments:
        name: of the method.
        regret: [B] true cost of the decision minus the optimal cost (NaN where a sample failed).
        optimal_value: [B] optimal objective, in the user's own sign; it normalizes.
        predicted, true: parameters by name, [B, ...]; `true` may hold more (known ones).
        decisions, optimal_decisions: by variable name, [B, ...].
        failed: positions of samples without a decision; samples with a non-finite regret are added.
        seconds: time spent predicting and solving.
        sense: "minimize" or "maximize", for `correct_cheapest`.
    Raises:
        ValueError: lengths disagree or a predicted parameter has no true value.
    """

    name: str
    regret: np.ndarray
    optimal_value: np.ndarray
    predicted: dict[str, np.ndarray]
    true: dict[str, np.ndarray]
    decisions: dict[str, np.ndarray]
    optimal_decisions: dict[str, np.ndarray]
    failed: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    seconds: float = float("nan")
    sense: str = "minimize"

    def __post_init__(self) -> None:
        regret = _vector(self.regret, "regret")
        value = _vector(self.optimal_value, "optimal_value")
        whose = f"evaluation of {self.name!r}"
        if len(regret) == 0:
            raise ValueError(f"{whose}: there are no instances to evaluate")
        if len(value) != len(regret):
            raise ValueError(f"{whose}: {len(regret)} regrets, {len(value)} optimal values")
        for group in ("predicted", "true", "decisions", "optimal_decisions"):
            arrays = {k: np.asarray(v) for k, v in getattr(self, group).items()}
            for key, array in arrays.items():
                if array.shape[:1] != regret.shape:
                    raise ValueError(
                        f"{whose}: {group}[{key!r}] has shape {array.shape}, "
                        f"expected {len(regret)} instances first"
                    )
            object.__setattr__(self, group, arrays)
        missing = sorted(self.predicted.keys() - self.true.keys())
        if missing:
            raise ValueError(f"{whose}: no true values for predicted parameters {missing}")
        bad = ~(np.isfinite(regret) & np.isfinite(value))
        bad[np.asarray(self.failed, dtype=int)] = True
        object.__setattr__(self, "regret", np.where(bad, np.nan, regret))
        object.__setattr__(self, "optimal_value", value)
        object.__setattr__(self, "failed", np.flatnonzero(bad))

    @property
    def num_instances(self) -> int:
        """B, failed samples included."""
        return len(self.regret)

    @cached_property
    def regret_summary(self) -> RegretSummary:
        """Mean, normalized regret, maximum, quantiles, counts."""
        # regret = regret − 0, so that only `scale` carries the optimal values.
        return regret_summary(self.regret, np.zeros_like(self.regret), scale=self.optimal_value)

    @property
    def mean_regret(self) -> float:
        """Mean regret over samples that did not fail."""
        return self.regret_summary.mean

    @property
    def normalized_regret(self) -> float:
        """Σ regret / Σ |optimal value| over samples that did not fail."""
        return self.regret_summary.normalized

    @property
    def max_regret(self) -> float:
        """Largest regret."""
        return self.regret_summary.maximum

    @property
    def regret_quantiles(self) -> dict[float, float]:
        """Quantiles .5, .9 and .95 of regret."""
        return self.regret_summary.quantiles

    @cached_property
    def prediction_error(self) -> dict[str, PredictionError]:
        """MSE, MAE and R² by predicted parameter."""
        return {k: prediction_error(v, self.true[k]) for k, v in self.predicted.items()}

    @cached_property
    def rank_agreement(self) -> dict[str, RankAgreement]:
        """Mean Spearman and Kendall correlation by predicted parameter."""
        return {k: rank_agreement(v, self.true[k]) for k, v in self.predicted.items()}

    @cached_property
    def correct_cheapest(self) -> dict[str, float]:
        """Share of samples with the right cheapest component, by predicted parameter."""
        return {k: correct_cheapest(v, self.true[k], sense=self.sense) for k, v in self.predicted.items()}

    @cached_property
    def equal_decisions(self) -> float:
        """Share of decisions equal to the optimal one within `EQUAL_TOLERANCE`; see `share_equal`."""
        return self.share_equal(EQUAL_TOLERANCE)

    def share_equal(self, tolerance: float) -> float:
        """Share of decisions equal to the optimal one among samples that did not fail (NaN if all did)."""
        if not self.decisions:
            return float("nan")
        equal = equal_decisions(self.decisions, self.optimal_decisions, tolerance=tolerance)
        equal[self.failed] = np.nan
        kept = equal[np.isfinite(equal)]
        return float(kept.mean()) if len(kept) else float("nan")

    def summary(self) -> dict[str, float]:
        """All metrics as one flat dict.

        Metrics of the prediction (`mse`, `mae`, `r2`, `spearman`, `kendall`, `correct_cheapest`) are the mean
        over predicted parameters; with several of them, `mse[name]` and so on follow for each.
        """
        out: dict[str, float] = {
            "instances": float(self.num_instances),
            "failed": float(len(self.failed)),
            "mean_regret": self.mean_regret,
            "normalized_regret": self.normalized_regret,
            "max_regret": self.max_regret,
        }
        out |= {f"regret_q{100 * q:.0f}": v for q, v in self.regret_quantiles.items()}
        out["equal_decisions"] = self.equal_decisions
        by_parameter = {
            k: {
                "mse": self.prediction_error[k].mse,
                "mae": self.prediction_error[k].mae,
                "r2": self.prediction_error[k].r2,
                "spearman": self.rank_agreement[k].spearman,
                "kendall": self.rank_agreement[k].kendall,
                "correct_cheapest": self.correct_cheapest[k],
            }
            for k in self.predicted
        }
        for metric in ("mse", "mae", "r2", "spearman", "kendall", "correct_cheapest"):
            values = np.array([m[metric] for m in by_parameter.values()])
            values = values[np.isfinite(values)]
            out[metric] = float(values.mean()) if len(values) else float("nan")
        if len(by_parameter) > 1:
            out |= {f"{metric}[{k}]": v for k, m in by_parameter.items() for metric, v in m.items()}
        out["seconds"] = float(self.seconds)
        return out

    def __str__(self) -> str:
        s = self.regret_summary
        failed = f", {s.failed} of {s.count} FAILED and left out" if s.failed else f", {s.count} instances"
        return (
            f"{self.name}: mean regret {s.mean:.4g} ± {s.standard_error:.2g}, "
            f"normalized {100 * s.normalized:.3g} %{failed}"
        )

    def table(self) -> Table:
        """A rich table of `summary()` for the terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("metric", title=escape(self.name))
        table.add_column("value", justify="right")
        for key, value in self.summary().items():
            style = "bold red" if key == "failed" and value else ""
            table.add_row(escape(key.replace("_", " ")), f"{value:.6g}", style=style)
        return table

    def to_json(self, path: str | Path | None = None, *, arrays: bool = True) -> str:
        """The evaluation as JSON text (NaN as null), also written to `path` if given.

        Arguments:
            arrays: False leaves the per-instance arrays out and keeps name, summary and failed samples.
        """
        out: dict[str, Any] = {"name": self.name, "sense": self.sense, "summary": self.summary()}
        out["failed"] = self.failed
        if arrays:
            for group in ("regret", "optimal_value", "predicted", "true", "decisions", "optimal_decisions"):
                out[group] = getattr(self, group)
        text = json.dumps(plain(out), allow_nan=False, indent=None if arrays else 2)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


# ------------------------------------------------------------------------------------------------ helpers


def _vector(a: Any, name: str) -> np.ndarray:
    a = np.asarray(a, dtype=float)
    if a.ndim != 1:
        raise ValueError(f"{name} must be one number per sample, got shape {a.shape}")
    return a


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return 0.0 if numerator == 0 else float("nan")
    return float(numerator / denominator)


def plain(value: Any) -> Any:
    """Nested dicts and arrays as JSON values; numbers that are not finite become None (JSON has no NaN)."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
