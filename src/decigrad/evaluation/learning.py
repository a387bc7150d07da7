"""How regret falls with the number of training samples, and how many seem needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from decigrad.evaluation.statistics import Estimate, format_number, mean_and_error

_RATES = (0.5, 1.0)
ENOUGH = 0.05
"""Samples are enough when more of them would save less than this share of the regret."""
_DRAWS = 400


@dataclass(frozen=True)
class LearningCurve:
    """Held-out regret against training samples, with the fit a + b n^(−r), r ½ or 1.

    Attributes:
        sizes: [K] training samples.
        regret: [K] held-out means with standard errors.
        asymptote: a, what infinitely many samples of this kind would leave.
        excess: b n^(−r) at the largest size: what more samples could still save.
        rate: r of the better fit.
        slope: b.
        needed: samples at which the excess is `ENOUGH` of the regret at the largest size; `low` and `high`
            are 10 % and 90 % quantiles over bootstrap draws, in which the rate is chosen anew.
        verdict: "enough" (`high` is no more than there are), "estimated" (`high` is at most six times
            `low`, and the estimate at most twenty times what there are), or "cannot tell".
    """

    sizes: np.ndarray
    regret: tuple[Estimate, ...]
    asymptote: Estimate
    excess: Estimate
    rate: float
    slope: float
    needed: float
    low: float
    high: float
    verdict: str

    def __call__(self, sizes: Any) -> np.ndarray:
        """The fitted curve."""
        return self.asymptote.mean + self.slope * np.asarray(sizes, float) ** -self.rate

    @property
    def text(self) -> str:
        """What it says, in a sentence."""
        largest = int(self.sizes[-1]) if len(self.sizes) else 0
        if len(self.sizes) < 3:
            return (
                "Cannot tell how many samples are needed: there are too few to train on three sizes that a "
                "predictor with this many features can be fitted to."
            )
        if self.verdict == "enough":
            return (
                f"{largest} training samples seem enough: more of them would save about "
                f"{format_number(max(self.excess.mean, 0.0), 2)}, less than {100 * ENOUGH:.0f} % of the "
                "regret."
            )
        if self.verdict == "estimated":
            return (
                f"About {_count(self.needed)} training samples seem needed (80 % interval "
                f"{_count(self.low)} to "
                f"{_count(self.high)}) until more of them would save less than {100 * ENOUGH:.0f} % of the "
                f"regret; there are {largest}."
            )
        return (
            f"Cannot tell how many samples are needed: the curve up to {largest} samples allows anything "
            "from "
            f"{_count(self.low)} to {_count(self.high)}."
        )


def fit_learning_curve(sizes: Any, regrets: Any, weights: Any, seed: int = 0) -> LearningCurve:
    """Fit regret(n) = a + b n^(−r) to the held-out means, r being ½ or 1, whichever fits better.

    Arguments:
        sizes: [K], increasing.
        regrets: [K, N] regret of the same N held-out samples after training on each size; samples with an
            entry that is not finite are left out.
        weights: [N].
        seed: of the bootstrap over samples, on which all errors and intervals rest.
    """
    n, values, w = np.asarray(sizes, float), np.asarray(regrets, float), np.asarray(weights, float)
    good = np.isfinite(values).all(axis=0) & (w > 0)
    values, w = values[:, good], w[good]
    means = tuple(mean_and_error(row, w) for row in values)
    nothing = Estimate(np.nan, np.nan, int(good.sum()))
    if len(n) < 3 or good.sum() < 2:
        return LearningCurve(n, means, nothing, nothing, 1.0, np.nan, np.nan, np.nan, np.nan, "cannot tell")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(w), np.full(len(w), 1.0 / len(w)), size=_DRAWS) * w
    sums = counts.sum(axis=1)
    draws = (counts[sums > 0] @ values.T) / sums[sums > 0, None]  # [draws, K]
    a, b, rate = _fit(n, np.array([[e.mean for e in means]]))
    many_a, many_b, many_rate = _fit(n, draws)
    excess = b * n[-1] ** -rate
    many_excess = many_b * n[-1] ** -many_rate
    needed = float(_needed(n[-1], excess, means[-1].mean, rate)[0])
    low, high = np.quantile(_needed(n[-1], many_excess, draws[:, -1], many_rate), [0.1, 0.9])
    count = len(w)
    if high <= n[-1]:
        verdict = "enough"
    elif high <= 6 * low and needed <= 20 * n[-1]:
        verdict = "estimated"
    else:
        verdict = "cannot tell"
    return LearningCurve(
        sizes=n,
        regret=means,
        asymptote=Estimate(float(a[0]), float(many_a.std(ddof=1)), count),
        excess=Estimate(float(excess[0]), float(many_excess.std(ddof=1)), count),
        rate=float(rate[0]),
        slope=float(b[0]),
        needed=needed,
        low=float(low),
        high=float(high),
        verdict=verdict,
    )


def _fit(n: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b and r of each row of means [D, K], by least squares."""
    best = np.full(len(means), np.inf)
    a, b, rate = np.zeros(len(means)), np.zeros(len(means)), np.ones(len(means))
    for r in _RATES:
        design = np.column_stack([np.ones(len(n)), n**-r])
        found = np.linalg.lstsq(design, means.T, rcond=None)[0]
        rest = ((design @ found - means.T) ** 2).sum(axis=0)
        better = rest < best
        best = np.where(better, rest, best)
        a, b = np.where(better, found[0], a), np.where(better, found[1], b)
        rate = np.where(better, r, rate)
    return a, b, rate


def _needed(n: float, excess: Any, regret: Any, rate: Any) -> np.ndarray:
    """Where excess · (n/m)^r falls to `ENOUGH` of the regret; 0 where there is no excess."""
    goal = np.broadcast_to(ENOUGH * np.asarray(regret, float), np.shape(excess))
    ratio = np.where(
        excess <= 0, 0.0, np.divide(excess, goal, out=np.full(goal.shape, np.inf), where=goal > 0)
    )
    return np.asarray(n * ratio ** (1.0 / np.asarray(rate)))


def _count(value: float) -> str:
    if not np.isfinite(value):
        return "any number"
    if value < 1:
        return "a few"
    rounded = float(f"{value:.2g}")
    return format_number(rounded, 2) if rounded >= 1e6 else f"{int(rounded):,}".replace(",", "\u202f")
