"""The two synthetic problems of the decision-focused tutorial: a resource allocation and a small portfolio.

Both have five standard normal features and three costs that a linear predictor cannot reach, because of one
product of two features per cost:

    allocation   minimize  cᵀx + ε ‖x‖²     s.t.  Σx = 1, 0 ≤ x ≤ 1
                 c = W φ + 0.4 φ_a φ_b + 0.15 N(0, 1),  then every sample's costs are shifted to mean 1
    portfolio    minimize  −rᵀx + γ ‖x‖²    s.t.  Σx = 1, 0 ≤ x ≤ 1
                 r = W φ + 0.8 φ_a φ_b + 0.10 N(0, 1)

The draws come from one `numpy.random.RandomState` in the tutorial's order, so that seed 42 gives the
published figures to the last bit and any other seed gives a fresh pair of problems.

Source: the discopt tutorial "Decision-Focused Learning with discopt".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decigrad import modeling as dm

ALLOCATION_WEIGHTS = np.array(
    [
        [0.4, -0.2, 0.1, 0.0, 0.3],
        [0.0, 0.2, -0.1, 0.4, 0.0],
        [-0.2, 0.1, 0.2, -0.2, 0.4],
    ]
)
"""Linear part of the allocation's costs, [3 activities, 5 features]."""

RETURN_WEIGHTS = np.array(
    [
        [0.60, -0.20, 0.12, 0.32, -0.08],
        [0.08, 0.40, -0.16, 0.04, 0.24],
        [-0.12, 0.16, 0.48, -0.24, 0.04],
    ]
)
"""Linear part of the portfolio's returns, [3 assets, 5 features]."""

_ALLOCATION_PAIRS = ((0, 1), (2, 3), (0, 4))
_RETURN_PAIRS = ((0, 2), (1, 4), (3, 0))

Samples = tuple[np.ndarray, np.ndarray]


def allocation_model(epsilon: float = 1.0) -> dm.Model:
    """The allocation: minimize `sum(cost * x) + epsilon * sum(x * x)` over the simplex.

    Variable `x` [3]; parameter `cost` [3]. Raises `ValueError` unless `epsilon` is positive: at zero the
    decision is a vertex, and its derivative is zero almost everywhere.
    """
    return _simplex_model("allocation", "cost", 1.0, _positive("epsilon", epsilon))


def returns_model(gamma: float = 2.0) -> dm.Model:
    """The tutorial's portfolio: minimize `-sum(returns * x) + gamma * sum(x * x)` over the simplex.

    Variable `x` [3]; parameter `returns` [3]. Raises `ValueError` unless `gamma` is positive.
    """
    return _simplex_model("portfolio", "returns", -1.0, _positive("gamma", gamma))


def allocation_samples(n: int, rng: int | np.random.RandomState = 42) -> Samples:
    """Draw `n` samples of the allocation.

    Arguments:
        n: number of samples, at least 1.
        rng: a seed, or a `RandomState` that is advanced by 8n normal draws (features, then noise).

    Returns:
        features [n, 5] and costs [n, 3], float64; every row of costs has mean 1.

    >>> features, costs = allocation_samples(30, 42)
    >>> costs[0].round(3).tolist()
    [1.01, 1.742, 0.248]
    """
    features, costs = _draw(n, _state(rng), ALLOCATION_WEIGHTS, _ALLOCATION_PAIRS, 0.4, 0.15)
    return features, costs - costs.mean(axis=1, keepdims=True) + 1.0


def returns_samples(n: int, rng: int | np.random.RandomState = 42) -> Samples:
    """Draw `n` samples of the tutorial's portfolio: features [n, 5] and returns [n, 3], float64.

    `rng` as in `allocation_samples`. To get the tutorial's own samples, draw through `tutorial_draws`:
    there the generator has served the allocation first.
    """
    return _draw(n, _state(rng), RETURN_WEIGHTS, _RETURN_PAIRS, 0.8, 0.1)


@dataclass(frozen=True)
class TutorialDraws:
    """Every random number of the tutorial, in its order: see `tutorial_draws`."""

    train: Samples
    test: Samples
    orders: np.ndarray
    returns_train: Samples
    returns_test: Samples
    returns_orders: np.ndarray


def tutorial_draws(seed: int = 42, *, n_train: int = 30, n_test: int = 15, epochs: int = 10) -> TutorialDraws:
    """Draw both parts of the tutorial from one generator.

    Order: allocation train, allocation test, one permutation of the training samples per epoch; then the
    same for the portfolio. `orders` and `returns_orders` are [epochs, n_train] permutations.

    >>> draws = tutorial_draws()
    >>> draws.train[0].shape, draws.returns_test[1].shape, draws.orders.shape
    ((30, 5), (15, 3), (10, 30))
    """
    rng = np.random.RandomState(seed)
    train, test = allocation_samples(n_train, rng), allocation_samples(n_test, rng)
    orders = np.stack([rng.permutation(n_train) for _ in range(epochs)])
    returns_train, returns_test = returns_samples(n_train, rng), returns_samples(n_test, rng)
    returns_orders = np.stack([rng.permutation(n_train) for _ in range(epochs)])
    return TutorialDraws(train, test, orders, returns_train, returns_test, returns_orders)


def _simplex_model(name: str, parameter: str, sign: float, curvature: float) -> dm.Model:
    model = dm.Model(name)
    x = model.continuous("x", shape=3, lb=0.0, ub=1.0)
    p = model.parameter(parameter, shape=3)
    model.minimize(sign * dm.sum(p * x) + curvature * dm.sum(x * x))
    model.subject_to(dm.sum(x) == 1.0, name="budget")
    return model


def _draw(
    n: int,
    rng: np.random.RandomState,
    weights: np.ndarray,
    pairs: tuple[tuple[int, int], ...],
    interaction: float,
    noise: float,
) -> Samples:
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}")
    features = rng.randn(n, weights.shape[1])
    costs = features @ weights.T
    for j, (a, b) in enumerate(pairs):
        # Left to right, as the tutorial multiplies: another order changes the last bit.
        costs[:, j] += interaction * features[:, a] * features[:, b]
    costs += noise * rng.randn(n, weights.shape[0])
    return features, costs


def _state(rng: int | np.random.RandomState) -> np.random.RandomState:
    return rng if isinstance(rng, np.random.RandomState) else np.random.RandomState(rng)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value
