"""How good a prediction is by itself, decisions apart: its error, and the order it puts components in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Above this length the O(n²) pair sweep of Kendall's tau is slower than a merge sort per sample.
_KENDALL_SWEEP_LIMIT = 1000


@dataclass(frozen=True)
class PredictionError:
    """Error of one predicted parameter over `count` samples with a finite prediction."""

    mse: float
    mae: float
    r2: float
    count: int


def prediction_error(predicted: Any, true: Any) -> PredictionError:
    """Mean squared error, mean absolute error and R² of one parameter.

        mse = mean (ĉ − c)²     mae = mean |ĉ − c|     R² = 1 − Σ (ĉ − c)² / Σ (c − c̄)²

    over all samples and components, c̄ being the mean of each component over samples (scikit-learn's
    `r2_score(multioutput="variance_weighted")`).

    Arguments:
        predicted, true: [B, ...].
    Returns:
        `PredictionError`; R² is NaN when the true values do not vary.
    """
    p, t = paired(predicted, true, "predicted", "true")
    good = np.isfinite(p).all(axis=1) & np.isfinite(t).all(axis=1)
    p, t = p[good], t[good]
    if not p.size:
        return PredictionError(np.nan, np.nan, np.nan, int(good.sum()))
    error = p - t
    spread = ((t - t.mean(axis=0)) ** 2).sum()
    return PredictionError(
        mse=float((error**2).mean()),
        mae=float(np.abs(error).mean()),
        r2=float(1.0 - (error**2).sum() / spread) if spread > 0 else np.nan,
        count=len(p),
    )


@dataclass(frozen=True)
class RankAgreement:
    """Mean rank correlation over the `defined` samples where both vectors vary."""

    spearman: float
    kendall: float
    defined: int


def rank_agreement(predicted: Any, true: Any) -> RankAgreement:
    """Whether the prediction puts the components in the right order, averaged over samples.

    Per sample, over the n components of the parameter: Spearman's rho (Pearson's correlation of ranks, ties
    share their average rank) and Kendall's tau-b (C − D) / √((C + D + T_p)(C + D + T_t)) with C concordant
    and D discordant pairs, T_p and T_t pairs tied in the prediction or the truth alone.

    Arguments:
        predicted, true: [B, ...], flattened to [B, n].
    Returns:
        `RankAgreement`; NaN when no sample is defined (n < 2, or a constant vector in every sample).
    Source: M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945),
    doi:10.1093/biomet/33.3.239.
    """
    p, t = paired(predicted, true, "predicted", "true")
    good = np.isfinite(p).all(axis=1) & np.isfinite(t).all(axis=1)
    p, t = p[good], t[good]
    if p.shape[1] < 2:
        return RankAgreement(np.nan, np.nan, 0)
    varies = (np.ptp(p, axis=1) > 0) & (np.ptp(t, axis=1) > 0)
    p, t = p[varies], t[varies]
    if not len(p):
        return RankAgreement(np.nan, np.nan, 0)
    return RankAgreement(float(spearman(p, t).mean()), float(kendall(p, t).mean()), len(p))


def spearman(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Spearman's rho of each row of two [B, n] arrays, ties by average rank: [B], NaN for a constant row."""
    from scipy.stats import rankdata

    a = rankdata(predicted, axis=1)
    b = rankdata(true, axis=1)
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    return _divide((a * b).sum(axis=1), np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)))


def kendall(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of two [B, n] arrays: [B], NaN for a constant row."""
    n = predicted.shape[1]
    if n > _KENDALL_SWEEP_LIMIT:
        from scipy.stats import kendalltau

        pairs = zip(predicted, true, strict=True)
        return np.array([kendalltau(a, b, method="asymptotic").statistic for a, b in pairs])
    agree, vary_p, vary_t = (np.zeros(len(predicted)) for _ in range(3))
    for k in range(1, n):  # all pairs at distance k at once: O(B n) memory
        sign_p = np.sign(predicted[:, k:] - predicted[:, :-k])
        sign_t = np.sign(true[:, k:] - true[:, :-k])
        agree += (sign_p * sign_t).sum(axis=1)
        vary_p += np.abs(sign_p).sum(axis=1)
        vary_t += np.abs(sign_t).sum(axis=1)
    return _divide(agree, np.sqrt(vary_p * vary_t))


def correct_cheapest(predicted: Any, true: Any, *, sense: str = "minimize") -> float:
    """Share of samples whose cheapest component was predicted to be the cheapest.

    With P the minimizers of the prediction and T those of the truth, a sample scores |P ∩ T| / |P|: the
    chance of being right when a tie is broken at random, so a constant prediction scores 1/n and not 1.

    Arguments:
        predicted, true: [B, ...], flattened to [B, n].
        sense: "minimize", or "maximize" where the parameter is a value and the dearest component counts.
    Returns:
        The mean score over samples with finite values; NaN if there are none or n < 2.
    """
    if sense not in ("minimize", "maximize"):
        raise ValueError(f'sense must be "minimize" or "maximize", got {sense!r}')
    p, t = paired(predicted, true, "predicted", "true")
    if sense == "maximize":
        p, t = -p, -t
    good = np.isfinite(p).all(axis=1) & np.isfinite(t).all(axis=1)
    p, t = p[good], t[good]
    if p.shape[1] < 2 or not len(p):
        return float("nan")
    in_p = p == p.min(axis=1, keepdims=True)
    in_t = t == t.min(axis=1, keepdims=True)
    return float(((in_p & in_t).sum(axis=1) / in_p.sum(axis=1)).mean())


def paired(a: Any, b: Any, name_a: str, name_b: str) -> tuple[np.ndarray, np.ndarray]:
    """Two equally shaped [B, ...] arrays as [B, n] floats."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim == 0:
        raise ValueError(f"{name_a} has shape {a.shape}, {name_b} {b.shape}: both must be the same [B, ...]")
    n = int(np.prod(a.shape[1:]))
    return a.reshape(len(a), n), b.reshape(len(b), n)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
