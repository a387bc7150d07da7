"""Is the difference real? Means, paired intervals, bootstraps, and how such numbers are written.

Two sources of chance are kept apart. *Seeds* repeat the experiment (training, and often the data); a t
interval over seeds covers them when every seed draws its own test set. *Instances* are the test set; where
all seeds share one test set, seeds alone say nothing about another test set (a deterministic method would
get an interval of width zero), so seeds and instances are resampled together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Resamples are drawn in blocks of about this many indices, so that memory does not grow with their number.
_CHUNK = 4_000_000


# ---------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error over `n` finite values; `error` is NaN for n < 2."""

    mean: float
    error: float
    n: int

    def __str__(self) -> str:
        return format_estimate(self.mean, self.error)


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval; NaN bounds where none can be given, and `method` says why."""

    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    method: str

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; False where there is no interval."""
        return self.known and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if not self.known:
            return f"{self.estimate:.3g} (no interval: {self.method})"
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_and_error(values: Any, weights: Any = None) -> Estimate:
    """Mean and standard error s/√n of the finite values, s with n − 1 degrees of freedom.

    Arguments:
        values: [n]; non-finite entries are left out and do not count in `Estimate.n`.
        weights: [n], nonnegative: the mean Σwv/Σw, with the error √(n/(n−1) Σw²(v − mean)²)/Σw of a ratio, n
            counting positive weights; equal weights give the plain mean and error.
    """
    v = np.asarray(values, dtype=float).ravel()
    w = np.ones_like(v) if weights is None else np.asarray(weights, dtype=float).ravel()
    kept = np.isfinite(v) & (w > 0)
    v, w = v[kept], w[kept]
    n = len(v)
    if not n:
        return Estimate(np.nan, np.nan, 0)
    mean = float(w @ v / w.sum())
    if n == 1:
        return Estimate(mean, np.nan, 1)
    error = float(np.sqrt(n / (n - 1) * ((w * (v - mean)) ** 2).sum()) / w.sum())
    return Estimate(mean, error, n)


def t_interval(values: Any, *, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean: mean ± t_{n−1} s/√n.

    Arguments:
        values: [n]; non-finite entries are left out.
    Returns:
        `Interval`, NaN bounds for n < 2.
    """
    check_confidence(confidence)
    e = mean_and_error(values)
    if e.n < 2:
        return Interval(e.mean, np.nan, np.nan, confidence, e.n, "a spread needs at least two seeds")
    from scipy.special import stdtrit

    reach = float(stdtrit(e.n - 1, 0.5 + confidence / 2)) * e.error
    return Interval(e.mean, e.mean - reach, e.mean + reach, confidence, e.n, f"t over {e.n} seeds")


def paired_difference(a: Any, b: Any, *, confidence: float = 0.95) -> Interval:
    """t interval for the mean of a − b over seeds; a and b are paired, [n] each.

    Pairing removes what both share (the draw of the data), which is most of the spread.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values must be two vectors of one length, got {a.shape} and {b.shape}")
    return t_interval(a - b, confidence=confidence)


def percent_gain(baseline: Any, method: Any) -> Any:
    """100 (baseline − method) / |baseline|, elementwise: positive where the method costs less.

    0 where both are zero; ±inf where only the baseline is zero.
    """
    base, other = np.asarray(baseline, dtype=float), np.asarray(method, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = 100.0 * (base - other) / np.abs(base)
    gain = np.where((base == 0) & (other == 0), 0.0, gain)
    return float(gain) if gain.ndim == 0 else gain


# ---------------------------------------------------------------------------------------------- bootstrap


def paired_bootstrap(
    a: Any,
    b: Any,
    *,
    statistic: str = "difference",
    confidence: float = 0.95,
    resamples: int = 5000,
    block: int = 1,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a paired comparison over instances, and over seeds where there are several.

    With one row per seed, rows and columns are resampled independently and crossed (Owen's pigeonhole
    bootstrap), which covers both sources of chance and errs on the wide side.

    Arguments:
        a, b: [B] or [S, B] regrets on the same instances (a: the baseline). A pair with a non-finite entry
            is left out.
        statistic: "difference", mean a − mean b; or "gain", 100 (mean a − mean b) / |mean a|, in percent.
        block: length of the blocks of consecutive instances kept together (1: independent instances).
        resamples: number of bootstrap draws.
        seed: of the draws; the same seed gives the same interval.
    Returns:
        `Interval`; NaN bounds when fewer than two instances remain.
    Raises:
        ValueError: shapes differ, or the statistic is unknown.
    Source: A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007),
        doi:10.1214/07-AOAS122; for the blocks, H. R. Künsch, The jackknife and the bootstrap for general
        stationary observations, Annals of Statistics 17 (1989), doi:10.1214/aos/1176347265.
    """
    check_confidence(confidence)
    a, b = np.atleast_2d(np.asarray(a, dtype=float)), np.atleast_2d(np.asarray(b, dtype=float))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"paired values must have one shape [B] or [S, B], got {a.shape} and {b.shape}")
    if statistic not in ("difference", "gain"):
        raise ValueError(f'statistic must be "difference" or "gain", got {statistic!r}')
    good = np.isfinite(a) & np.isfinite(b)
    seeds, n = a.shape
    used = int(good.any(axis=0).sum())
    layers = np.stack([np.where(good, a, 0.0), np.where(good, b, 0.0), good.astype(float)])
    estimate = float(_compare(layers.sum(axis=(1, 2)), statistic))
    if used < 2:
        return Interval(estimate, np.nan, np.nan, confidence, used, "a spread needs at least two instances")
    rng = np.random.default_rng(seed)
    draws = []
    for counts in _instance_counts(n, min(block, n), resamples, rng):  # [R, n] each
        rows = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=len(counts))  # [R, S]
        sums = np.stack([((counts @ layer.T) * rows).sum(axis=1) for layer in layers])
        draws.append(_compare(sums, statistic))
    values = np.concatenate(draws)
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(estimate, np.nan, np.nan, confidence, used, "the baseline's mean is zero")
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    what = f"bootstrap over {used} instances"
    if block > 1:
        what += f" in blocks of {min(block, n)}"
    if seeds > 1:
        what += f" and {seeds} seeds"
    return Interval(estimate, float(low), float(high), confidence, used, what)


def moving_block_bootstrap(
    values: Any,
    *,
    block: int | None = None,
    statistic: Callable[[np.ndarray], float] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of a time series, resampled in blocks that keep its dependence.

    A resample of a series of length n joins ⌈n / block⌉ blocks whose starts are uniform over the
    n − block + 1 possible ones, cut to n. For a paired comparison pass the differences.

    Arguments:
        values: [n] in time order, all finite.
        block: block length; default ⌈n^(1/3)⌉, the rate that is optimal for the variance of a mean. Choose it
            longer than the dependence (a day of hourly prices: 24 or more).
        statistic: maps a resampled series [n] to a number.
    Returns:
        `Interval`; NaN bounds for n < 2.
    Raises:
        ValueError: a value is not finite (dropping it would break the order), or block is not in 1..n.
    Source: H. R. Künsch (1989), doi:10.1214/aos/1176347265.
    """
    check_confidence(confidence)
    v = np.asarray(values, dtype=float)
    if v.ndim != 1 or not len(v):
        raise ValueError(f"a time series must be a non-empty vector, got shape {v.shape}")
    if not np.isfinite(v).all():
        bad = int((~np.isfinite(v)).sum())
        raise ValueError(f"the series has {bad} non-finite values; fill or cut them first")
    n = len(v)
    block = default_block(n) if block is None else block
    if not 1 <= block <= n:
        raise ValueError(f"block must be between 1 and the length of the series {n}, got {block}")
    estimate = float(statistic(v))
    if n < 2:
        return Interval(estimate, np.nan, np.nan, confidence, n, "a spread needs at least two instances")
    rng = np.random.default_rng(seed)
    draws = [statistic(v[_block_index(n, block, 1, rng)[0]]) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    method = f"bootstrap over {n} instances in blocks of {block}"
    return Interval(estimate, float(low), float(high), confidence, n, method)


def default_block(n: int) -> int:
    """⌈n^(1/3)⌉, at least 1."""
    return max(1, int(np.ceil(round(n ** (1 / 3), 9))))


def _block_index(n: int, block: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples, n] positions, in runs of `block`."""
    starts = rng.integers(0, n - block + 1, size=(resamples, -(-n // block)))
    return (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n]


def _instance_counts(n: int, block: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each instance is drawn, in chunks [R, n] that add up to `resamples` rows."""
    step = max(1, min(resamples, _CHUNK // n))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        index = _block_index(n, block, rows, rng) + n * np.arange(rows)[:, None]
        yield np.bincount(index.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def _compare(sums: np.ndarray, statistic: str) -> np.ndarray:
    """From (Σa, Σb, count) to the statistic; NaN where it is undefined."""
    total_a, total_b, count = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        if statistic == "difference":
            return (total_a - total_b) / count
        return np.asarray(percent_gain(total_a, total_b))


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")


# --------------------------------------------------------------------------------------------- formatting


def format_number(value: float, digits: int = 4) -> str:
    """A number in `digits` significant digits, as a power of ten outside 1e-4 … 1e6; "–" for NaN."""
    if np.isnan(value):
        return "–"
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = int(np.floor(np.log10(abs(value))))
    plain = -5 < magnitude < 6
    text = f"{value:,.{max(0, digits - 1 - magnitude)}f}" if plain else f"{value:.{digits - 1}e}"
    return text.replace("-", "−").replace(",", "\u202f")


def format_estimate(mean: float, error: float) -> str:
    """`mean ± error`, both cut where the error has one or two digits; the mean alone without an error."""
    if not np.isfinite(mean) or not np.isfinite(error) or error == 0:
        return format_number(mean)
    # An error that starts with 1 keeps a second digit: 0.19 is not 0.2, but 0.78 might as well be 0.8.
    place = int(np.floor(np.log10(error)))
    place -= int(round(error / 10.0**place, 1) < 2)
    if abs(mean) >= 1e6 or place < -8:
        return f"{format_number(mean)} ± {format_number(error, 2)}"
    decimals = max(0, -place)
    return f"{mean:,.{decimals}f} ± {error:,.{decimals}f}".replace("-", "−").replace(",", "\u202f")


def signed(value: float) -> str:
    """A number in three significant digits with its sign."""
    return ("+" if value > 0 else "") + format_number(value, 3)
