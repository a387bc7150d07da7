"""Knapsack with several constraints: the items with the greatest total value that fit.

    maximize    vᵀx      s.t.  W x ≤ capacity,  x ∈ {0, 1}ⁿ

The weights W are known; the values are predicted. W has entries 3.00, 3.01, …, 7.99; with features
φ ~ N(0, I_p) and a matrix B of independent Bernoulli(½) entries the value of an item is

    v = ⌈ 5 · [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise) ⌉

The draws are those of PyEPO 2.2 for equal seeds: W first, then B, φ, and the noise.

Source: Tang and Khalil (2024), PyEPO, doi:10.1007/s12532-024-00255-x.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems._polynomial import check_draws, multiplicative, polynomial

MEASURED = {"two-stage": 9.99, "spo+": 8.6, "pfyl": 8.6, "expected": 7.95}
"""Normalized regret in % of PyEPO 2.2 itself: 32 items, 2 constraints, capacity 20, degree 4, noise ½, 5
features, 1,000 training and 1,000 test samples, a linear predictor, Adam at 0.01, batches of 32, 20 epochs.
`two-stage` is ordinary least squares; `expected` decides by the true expected values, the best there is."""


def knapsack_weights(seed: int = 42, *, items: int = 32, dimensions: int = 2) -> np.ndarray:
    """The weights [dimensions, items] that go with the samples of the same seed and sizes.

    >>> knapsack_weights(42, items=4, dimensions=1)
    array([[4.02, 7.35, 6.48, 5.7 ]])
    """
    return _weights(np.random.RandomState(seed), items, dimensions)


def knapsack_model(weights: Any, capacity: Any = 20.0) -> dg.Model:
    """The knapsack: parameter `value` [n], binary variable `x` [n].

    Args:
        weights: W [m, n], not negative.
        capacity: one number for all m constraints, or [m].
    """
    weights, capacity = _instance(weights, capacity)
    items = weights.shape[1]
    m = dg.Model(f"knapsack of {items} items")
    x = m.binary("x", shape=items)
    value = m.parameter("value", shape=items)
    m.maximize(value @ x)
    m.subject_to(weights @ x <= capacity, name="capacity")
    return m


def knapsack_layer(weights: Any, capacity: Any = 20.0) -> dg.DecisionLayer:
    """The model, solved by enumeration of its maximal sets (`oracles.MultiKnapsack`)."""
    weights, capacity = _instance(weights, capacity)
    return dg.DecisionLayer(
        knapsack_model(weights, capacity), solver=dg.oracles.MultiKnapsack(weights, capacity)
    )


def knapsack_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 5,
    items: int = 32,
    dimensions: int = 2,
    degree: int = 4,
    noise: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], values [n, items], and the expected values given the features, [n, items].

    Args:
        n: number of samples.
        seed: of the draws; equal to PyEPO's for equal arguments. The weights: `knapsack_weights(seed, …)`.
        features: p.
        items, dimensions: size of the knapsack; the weights are drawn, so they change the values too.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.

    >>> x, values, expected = knapsack_samples(100, features=3, items=10)
    >>> x.shape, values.shape, expected.shape
    ((100, 3), (100, 10), (100, 10))
    """
    check_draws(n, features, degree, noise)
    rng = np.random.RandomState(seed)
    _weights(rng, items, dimensions)
    selection = rng.binomial(1, 0.5, (items, features))
    x = rng.normal(0, 1, (n, features))
    mean = polynomial(x, selection, degree) + 1.0
    mean *= 5.0
    mean /= 3.5**degree
    values = np.ceil(mean * multiplicative(rng, noise, mean.shape))
    return x, values, _expected_ceiling(mean, noise)


def _weights(rng: np.random.RandomState, items: int, dimensions: int) -> np.ndarray:
    if items < 1 or dimensions < 1:
        raise ModelError(f"items and dimensions must be positive integers, got {items}, {dimensions}")
    return rng.choice(range(300, 800), size=(dimensions, items)) / 100


def _instance(weights: Any, capacity: Any) -> tuple[np.ndarray, np.ndarray]:
    weights = np.array(weights, np.float64)
    if weights.ndim != 2:
        raise ModelError(f"weights must be [constraints, items], got shape {weights.shape}")
    capacity = np.array(capacity, np.float64)
    if capacity.shape not in ((), weights.shape[:1]):
        raise ModelError(f"capacity must be one number or [{len(weights)}], got shape {capacity.shape}")
    return weights, np.broadcast_to(capacity, weights.shape[:1])


def _expected_ceiling(mean: np.ndarray, noise: float) -> np.ndarray:
    """E⌈mean · U(1 − noise, 1 + noise)⌉, exactly, from the integral of ⌈u⌉ between 0 and t."""
    if noise == 0:
        return np.ceil(mean)

    def integral(t: np.ndarray) -> np.ndarray:
        whole = np.floor(t)
        return whole * (whole + 1.0) / 2.0 + (t - whole) * (whole + 1.0)

    low, high = mean * (1.0 - noise), mean * (1.0 + noise)
    width = np.where(high == low, 1.0, high - low)
    return np.where(high == low, np.ceil(mean), (integral(high) - integral(low)) / width)
