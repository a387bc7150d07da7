"""Portfolio under a limit on risk: the greatest expected return of long-only portfolios of bounded variance.

    maximize    rᵀx      s.t.  xᵀΣx ≤ γ,  Σx ≤ 1,  x ≥ 0

Features φ ~ N(0, I_p), a matrix B of independent Bernoulli(½) entries, loadings L of entries from
U(−0.0025τ, 0.0025τ), and the returns of an asset

    r = ( 0.05 (Bφ)/√p + 0.1^(1/degree) )^degree + L f + 0.01 τ ε,      f ~ N(0, I),  ε ~ N(0, 1)

so that Σ = LLᵀ + (0.01τ)²I whatever the features; γ is 2.25 times the variance of equal weights. Draws: L, B,
φ, f, ε.

Source: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", section 6.2, doi:10.1287/mnsc.2020.3922.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems._polynomial import check_draws

PUBLISHED = {
    "spo+": {1: 1.88, 4: 2.46, 8: 1.55, 16: 0.92},
    "two-stage": {1: 1.87, 4: 2.48, 8: 1.69, 16: 1.83},
}
"""Regret in % of the optimal return, by degree: τ = 1, 1,000 samples and 250 more to choose the
regularization, mean of 48 repetitions; from the results that its authors publish with their code."""


def risk_portfolio_covariance(
    seed: int = 42, *, assets: int = 50, factors: int = 4, noise: float = 1.0
) -> np.ndarray:
    """Σ [assets, assets] that goes with the samples of the same seed, sizes and noise τ.

    >>> risk_portfolio_covariance(assets=3).shape
    (3, 3)
    """
    loadings = _loadings(np.random.RandomState(seed), assets, factors, noise)
    return loadings @ loadings.T + (0.01 * noise) ** 2 * np.eye(assets)


def risk_limit(covariance: Any) -> float:
    """γ: 2.25 times the variance of equal weights."""
    return 2.25 * float(np.mean(covariance))


def risk_portfolio_model(assets: int = 50) -> dg.Model:
    """Parameter `returns` and variable `x`, [assets] each.

    **The limit on risk is not described**: a quadratic constraint is outside the class of models. The layer's
    oracle knows it, so decide with `risk_portfolio_layer`, not with this model alone.
    """
    m = dg.Model(f"portfolio of {assets} assets")
    x = m.continuous("x", shape=assets, lb=0.0)
    returns = m.parameter("returns", shape=assets)
    m.maximize(returns @ x)
    m.subject_to(dg.sum(x) <= 1.0, name="budget")
    return m


def risk_portfolio_layer(covariance: Any, risk: float | None = None) -> dg.DecisionLayer:
    """The model, solved by `oracles.Portfolio`; `risk` is γ, by default `risk_limit(covariance)`.

    Its decision is not a vertex: train it with losses that do not differentiate it, such as `SPOPlus`.
    """
    oracle = dg.oracles.Portfolio(covariance, risk_limit(covariance) if risk is None else risk)
    return dg.DecisionLayer(risk_portfolio_model(oracle.size()), solver=oracle)


def risk_portfolio_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 5,
    assets: int = 50,
    factors: int = 4,
    degree: int = 4,
    noise: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], returns [n, assets], and the expected returns given the features, [n, assets].

    Args:
        n: number of samples.
        seed: of the draws. The covariance: `risk_portfolio_covariance(seed, …)`.
        features: p.
        assets, factors: sizes; the loadings are drawn, so they change the other draws too.
        degree: of the polynomial, at least 1.
        noise: τ ≥ 0, a multiple of both kinds of risk.

    >>> x, returns, expected = risk_portfolio_samples(100, assets=10)
    >>> x.shape, returns.shape, expected.shape
    ((100, 5), (100, 10), (100, 10))
    """
    check_draws(n, features, degree, 0.0)
    rng = np.random.RandomState(seed)
    loadings = _loadings(rng, assets, factors, noise)
    selection = rng.binomial(1, 0.5, (assets, features))
    x = rng.normal(0, 1, (n, features))
    expected = (0.05 * (x @ selection.T) / np.sqrt(features) + 0.1 ** (1.0 / degree)) ** degree
    common = rng.normal(0, 1, (n, factors)) @ loadings.T
    return x, expected + common + 0.01 * noise * rng.normal(0, 1, (n, assets)), expected


def _loadings(rng: np.random.RandomState, assets: int, factors: int, noise: float) -> np.ndarray:
    if assets < 1 or factors < 1 or not noise >= 0:
        raise ModelError(
            f"assets and factors must be positive and noise not negative, got {assets}, {factors}, {noise}"
        )
    return rng.uniform(-0.0025 * noise, 0.0025 * noise, (assets, factors))
