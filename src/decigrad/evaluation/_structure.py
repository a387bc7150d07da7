"""What features still explain of residuals, and how much of them is noise: two regressions on neighbours.

Both see standardized features, so that they do not depend on units; a constant feature counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from decigrad.evaluation.statistics import Estimate

# The kernel regression takes at most this many samples: its cost grows with their cube.
MAX_CENTRES = 800
_WIDTHS = (0.25, 1.0, 4.0, 16.0)
_RIDGES = 10.0 ** np.arange(-4.0, 2.1, 0.5)
_BLOCKS = 20


@dataclass(frozen=True)
class KernelRegression:
    """r̂(φ) = Σᵢ αᵢ exp(−‖z − zᵢ‖²/2h²) of standardized features z, fitted by `fit`; zero where α is None."""

    mean: np.ndarray
    spread: np.ndarray
    centres: np.ndarray
    width: float
    coefficients: np.ndarray | None
    outputs: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """[B, m] for features [B, p]."""
        if self.coefficients is None:
            return np.zeros((len(features), self.outputs))
        z = (features - self.mean) / self.spread
        return np.exp(-_squares(z, self.centres) / self.width) @ self.coefficients

    @staticmethod
    def fit(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, seed: int) -> KernelRegression:
        """Kernel ridge regression of targets [N, m] on features [N, p], weighted by [N].

        Width and ridge have the smallest leave-one-out error in the unit of the targets' spreads; where no
        pair beats predicting zero, it predicts zero. The leave-one-out errors are those of the closed form
        (y − ŷ)ᵢ / (1 − Hᵢᵢ), H the hat matrix of the weighted problem.
        """
        kept = np.flatnonzero(weights > 0)
        if len(kept) > MAX_CENTRES:
            kept = np.sort(np.random.default_rng(seed).choice(kept, MAX_CENTRES, replace=False))
        x, y = features[kept], targets[kept]
        root = np.sqrt(weights[kept] / weights[kept].mean())[:, None]
        mean, spread = _scales(x)
        _, units = _scales(y)
        z, y = (x - mean) / spread, root * y / units
        distances = _squares(z, z)
        typical = float(np.median(distances[np.triu_indices(len(z), 1)])) if len(z) > 1 else 0.0
        best, width, coefficients = float((y**2).mean()), 1.0, None
        for factor in _WIDTHS if typical > 0 else ():
            kernel = np.exp(-distances / (factor * typical)) * root * root.T
            values, vectors = np.linalg.eigh(kernel)
            turned = vectors.T @ y
            for ridge in _RIDGES:
                shrunk = np.maximum(values, 0.0) / (np.maximum(values, 0.0) + ridge)
                left = np.maximum(1.0 - (vectors**2 * shrunk).sum(1), 1e-12)
                errors = (y - vectors @ (shrunk[:, None] * turned)) / left[:, None]
                score = float((errors**2).mean())
                if score < best:
                    best, width = score, factor * typical
                    inverse = turned / (np.maximum(values, 0.0) + ridge)[:, None]
                    coefficients = root * (vectors @ inverse) * units
        return KernelRegression(mean, spread, z, width, coefficients, targets.shape[1])


@dataclass(frozen=True)
class NoiseTest:
    """The Gamma test: half the mean squared difference of neighbours' values, against their squared distance.

    Attributes:
        distances, differences: [k], of the k-th nearest neighbours: mean squared distance, and half the mean
            squared difference in units of the values' mean square.
        share: the intercept: the share of the mean square that remains at distance zero, between 0 and 1. Its
            standard error is the jackknife's over blocks of samples.
        slope: of the line.
    """

    distances: np.ndarray
    differences: np.ndarray
    share: Estimate
    slope: float


def noise_test(features: np.ndarray, values: np.ndarray, weights: np.ndarray, seed: int) -> NoiseTest:
    """How much of values [N, m] is noise that features [N, p] cannot explain.

    If v = g(φ) + ε with g smooth, half the mean squared difference of the values of k-th nearest neighbours
    is about var ε + A·(their squared distance): the intercept of the line over k = 1 … 10 estimates the
    noise.
    With rough g, few samples or many features, neighbours are far from each other and it errs high.

    Source: D. Evans, A. J. Jones, A proof of the Gamma test, Proceedings of the Royal Society A 458 (2002),
    doi:10.1098/rspa.2002.1010.
    """
    from scipy.spatial import cKDTree

    kept = np.flatnonzero(weights > 0)
    x, y, w = features[kept], values[kept], weights[kept] / weights[kept].sum()
    mean, spread = _scales(x)
    units = np.sqrt(np.maximum(w @ y**2, np.finfo(float).tiny))
    y = y / units
    neighbours = min(10, len(kept) - 1)
    if neighbours < 2 or not (np.abs(values[kept]).max(initial=0.0) > 0):
        nothing = np.zeros(0)
        return NoiseTest(nothing, nothing, Estimate(1.0, np.nan, len(kept)), 0.0)
    z = (x - mean) / spread
    _, index = cKDTree(z).query(z, k=neighbours + 1)
    index = _without_self(index)
    squares = ((z[index] - z[:, None]) ** 2).sum(-1)
    differences = 0.5 * ((y[index] - y[:, None]) ** 2).mean(-1)

    def line(use: np.ndarray) -> np.ndarray:
        part = w[use] / w[use].sum()
        left = np.column_stack([np.ones(neighbours), part @ squares[use]])
        scale = float((part @ y[use] ** 2).mean())
        return np.linalg.lstsq(left, part @ differences[use] / scale, rcond=None)[0]

    everything = np.arange(len(kept))
    intercept, slope = line(everything)
    blocks = np.array_split(np.random.default_rng(seed).permutation(everything), min(_BLOCKS, len(kept)))
    left_out = np.array([line(np.setdiff1d(everything, block))[0] for block in blocks])
    g = len(blocks)
    error = float(np.sqrt((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum()))
    share = Estimate(float(np.clip(intercept, 0.0, 1.0)), error, len(kept))
    return NoiseTest(w @ squares, w @ differences, share, float(slope))


def _without_self(index: np.ndarray) -> np.ndarray:
    """Each row of neighbours without the sample itself, wherever ties have put it; else without the last."""
    own = index == np.arange(len(index))[:, None]
    own[~own.any(axis=1), -1] = True
    return index[~own].reshape(len(index), -1)


def _scales(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, spread = a.mean(axis=0), a.std(axis=0)
    return mean, np.where(spread > 1e-12 * (1.0 + np.abs(mean)), spread, 1.0)


def _squares(a: Any, b: Any) -> np.ndarray:
    """Squared distances of all rows, [A, B]."""
    found = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    return np.maximum(found, 0.0)
