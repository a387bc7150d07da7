"""What the synthetic problems share: the linear objective, and the polynomial of Elmachtoub and Grigas.

With features φ ~ N(0, I_p) and a matrix W whose rows select or weigh them, entry j of a cost starts from

    (W_jφ/√p + 3)^degree

which a linear predictor misses for degree > 1. The order of the draws is each problem's own: its source's.

Source: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError


def linear_model(
    name: str, size: int, parameter: str = "cost", lb: float = 0.0, ub: float = 1.0
) -> tuple[dg.Model, Any]:
    """minimize cᵀx over lb ≤ x ≤ ub: a model without constraints yet, and its variable `x`."""
    m = dg.Model(name)
    x = m.continuous("x", shape=size, lb=lb, ub=ub)
    m.minimize(m.parameter(parameter, shape=size) @ x)
    return m, x


def check_draws(n: int, features: int, degree: int, noise: float) -> None:
    """Refuse settings that make no sense."""
    if n < 1 or features < 1 or degree < 1 or int(degree) != degree:
        raise ModelError(f"n, features and degree must be positive integers, got {n}, {features}, {degree}")
    if not 0 <= noise < 1:
        raise ModelError(f"noise must lie in [0, 1), got {noise}")


def polynomial(x: np.ndarray, weights: np.ndarray, degree: int) -> np.ndarray:
    """The polynomial above, [n, d], of features [n, p] and weights [d, p]."""
    return (x @ weights.T / np.sqrt(x.shape[1]) + 3.0) ** degree


def multiplicative(rng: np.random.RandomState, noise: float, shape: tuple[int, ...]) -> np.ndarray:
    """Factors from U(1 − noise, 1 + noise)."""
    return rng.uniform(1.0 - noise, 1.0 + noise, shape)


def polynomial_costs(
    n: int, seed: int, size: int, features: int, degree: int, noise: float, scaled: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, p], costs [n, size] and the expected costs, as PyEPO draws those of shortest paths.

    c = [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise), drawn in the order B, φ, noise;
    without the division unless `scaled`.
    """
    check_draws(n, features, degree, noise)
    rng = np.random.RandomState(seed)
    selection = rng.binomial(1, 0.5, (size, features))
    x = rng.normal(0, 1, (n, features))
    expected = polynomial(x, selection, degree) + 1.0
    if scaled:
        expected /= 3.5**degree
    return x, expected * multiplicative(rng, noise, expected.shape), expected
