"""The allocation tutorial in closed form: NumPy only, nothing of decigrad.

Both parts of the tutorial solve

    minimize  s·x + ε‖x‖²   subject to  Σ xᵢ = 1,  0 ≤ xᵢ ≤ 1,

the Euclidean projection of −s/(2ε) onto the simplex (the upper bound follows from the other two). With the
entries of v = −s/(2ε) sorted downwards, the support S holds the k largest, k the last index at which
v₍ₖ₎ exceeds τₖ = (Σᵢ≤ₖ v₍ᵢ₎ − 1)/k, and x = max(v − τ, 0) (Held, Wolfe and Crowder 1974,
doi:10.1007/BF01580223). Inside one support x is affine in s, which gives the Jacobian

    dx/ds = −(diag(1_S) − 1_S 1_Sᵀ/|S|) / (2ε),

zero exactly at a vertex (|S| = 1).
"""

# The tutorial draws from NumPy's global stream, so that its seed gives its numbers.
# ruff: noqa: NPY002

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

EPOCHS, BATCH = 10, 10


def solve(score: Array, epsilon: float) -> tuple[Array, Array]:
    """The decision [n] and its Jacobian dx/ds [n, n]."""
    v = -np.asarray(score, dtype=np.float64) / (2 * epsilon)
    ordered = np.sort(v)[::-1]
    thresholds = (np.cumsum(ordered) - 1) / np.arange(1, v.size + 1)
    tau = thresholds[np.nonzero(ordered > thresholds)[0][-1]]
    x = np.maximum(v - tau, 0.0)
    support = (v > tau).astype(np.float64)
    jacobian = -(np.diag(support) - np.outer(support, support) / support.sum()) / (2 * epsilon)
    return x, jacobian


def solve_by_bisection(score: Array, epsilon: float) -> Array:
    """The decision again by another road: bisection on the multiplier of Σx = 1 with both bounds kept."""
    s = np.asarray(score, dtype=np.float64)
    low, high = -s.max() - 2 * epsilon, -s.min()
    for _ in range(200):
        nu = 0.5 * (low + high)
        if np.clip((-s - nu) / (2 * epsilon), 0.0, 1.0).sum() > 1.0:
            low = nu
        else:
            high = nu
    return np.clip((-s - 0.5 * (low + high)) / (2 * epsilon), 0.0, 1.0)


@dataclass(frozen=True)
class Part:
    """One part: x minimizes sign·prediction·x + ε‖x‖²; it is scored with or without the ε term."""

    weights: Array
    interactions: tuple[tuple[int, int], ...]
    strength: float
    noise: float
    centred: bool
    sign: float
    epsilon: float
    full_score: bool
    rate: float

    def draw(self, n: int) -> tuple[Array, Array]:
        """Features [n, 5] and targets [n, 3] from NumPy's global stream: features first, then noise."""
        features = np.random.randn(n, 5)
        targets = features @ self.weights.T
        for k, (i, j) in enumerate(self.interactions):
            targets[:, k] += self.strength * features[:, i] * features[:, j]
        targets += self.noise * np.random.randn(n, 3)
        if self.centred:
            targets = targets - targets.mean(axis=1, keepdims=True) + 1.0
        return features, targets

    def decide(self, prediction: Array) -> tuple[Array, Array]:
        """Decision and its Jacobian in the *prediction* (the sign is the chain rule's)."""
        x, jacobian = solve(self.sign * prediction, self.epsilon)
        return x, self.sign * jacobian

    def cost(self, x: Array, target: Array, full: bool | None = None) -> float:
        """What a decision costs under the true target."""
        linear = self.sign * float(target @ x)
        return linear + self.epsilon * float(x @ x) if (self.full_score if full is None else full) else linear

    def slope(self, x: Array, target: Array) -> Array:
        """d cost / d x."""
        linear = self.sign * target
        return linear + 2 * self.epsilon * x if self.full_score else linear


ALLOCATION = Part(
    weights=np.array([[0.4, -0.2, 0.1, 0.0, 0.3], [0.0, 0.2, -0.1, 0.4, 0.0], [-0.2, 0.1, 0.2, -0.2, 0.4]]),
    interactions=((0, 1), (2, 3), (0, 4)),
    strength=0.4,
    noise=0.15,
    centred=True,
    sign=1.0,
    epsilon=1.0,
    full_score=False,
    rate=0.05,
)

PORTFOLIO = Part(
    weights=np.array(
        [[0.60, -0.20, 0.12, 0.32, -0.08], [0.08, 0.40, -0.16, 0.04, 0.24], [-0.12, 0.16, 0.48, -0.24, 0.04]]
    ),
    interactions=((0, 2), (1, 4), (3, 0)),
    strength=0.8,
    noise=0.1,
    centred=False,
    sign=-1.0,
    epsilon=2.0,
    full_score=True,
    rate=0.1,
)


@dataclass(frozen=True)
class Run:
    """Everything measured in one part; arrays by test instance."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    two_stage: Array  # weights [3, 5]
    trained: Array  # weights [3, 5]
    losses: list[float]  # by epoch
    support_sizes: list[int]  # of every training solve
    costs: dict[str, Array]  # "oracle", "two_stage", "trained", each [n_test]
    full_costs: dict[str, Array]  # the same on the full objective


def run(part: Part) -> Run:
    """Draw, fit least squares, train through the decision, and score."""
    train, test = part.draw(30), part.draw(15)
    two_stage = np.linalg.lstsq(train[0], train[1], rcond=None)[0].T
    weights, losses, sizes = two_stage.copy(), [], []
    for _ in range(EPOCHS):
        order, total = np.random.permutation(30), 0.0
        for start in range(0, 30, BATCH):
            gradient, value = np.zeros_like(weights), 0.0
            for i in order[start : start + BATCH]:
                x, jacobian = part.decide(weights @ train[0][i])
                value += part.cost(x, train[1][i])
                gradient += np.outer(jacobian.T @ part.slope(x, train[1][i]), train[0][i])
                sizes.append(int((x > 0).sum()))
            weights = weights - part.rate * gradient / BATCH
            total += value / BATCH
        losses.append(total / (30 // BATCH))
    predictions = {"oracle": test[1], "two_stage": test[0] @ two_stage.T, "trained": test[0] @ weights.T}
    decisions = {name: [part.decide(p)[0] for p in rows] for name, rows in predictions.items()}

    def score(full: bool | None) -> dict[str, Array]:
        return {
            name: np.array([part.cost(x, c, full) for x, c in zip(xs, test[1], strict=True)])
            for name, xs in decisions.items()
        }

    return Run(train, test, two_stage, weights, losses, sizes, score(None), score(True))


def figures(seed: int = 42) -> dict[str, float]:
    """The tutorial's headline numbers and the ones it does not show."""
    np.random.seed(seed)
    first, second = run(ALLOCATION), run(PORTFOLIO)
    regret = {k: first.costs[k] - first.costs["oracle"] for k in ("two_stage", "trained")}
    full = {k: first.full_costs[k] - first.full_costs["oracle"] for k in ("two_stage", "trained")}
    second_regret = {k: second.costs[k] - second.costs["oracle"] for k in ("two_stage", "trained")}
    change = np.linalg.norm(first.trained - first.two_stage)
    ones = np.ones((30, 1))
    with_bias = np.linalg.lstsq(np.hstack([first.train[0], ones]), first.train[1], rcond=None)[0]
    intercept = np.hstack([first.test[0], ones[:15]]) @ with_bias
    return {
        "train_mse": float(np.mean((first.train[0] @ first.two_stage.T - first.train[1]) ** 2)),
        "test_mse": float(np.mean((first.test[0] @ first.two_stage.T - first.test[1]) ** 2)),
        "test_mse_trained": float(np.mean((first.test[0] @ first.trained.T - first.test[1]) ** 2)),
        "test_mse_intercept": float(np.mean((intercept - first.test[1]) ** 2)),
        "regret_two_stage": float(regret["two_stage"].mean()),
        "regret_trained": float(regret["trained"].mean()),
        "negative_regrets_two_stage": int((regret["two_stage"] < 0).sum()),
        "negative_regrets_trained": int((regret["trained"] < 0).sum()),
        "full_regret_two_stage": float(full["two_stage"].mean()),
        "full_regret_trained": float(full["trained"].mean()),
        "solves_with_active_bound": sum(size < 3 for size in first.support_sizes),
        "vertices": sum(size == 1 for size in first.support_sizes),
        "final_loss": first.losses[-1],
        "weight_change": float(change / np.linalg.norm(first.two_stage)),
        "portfolio_regret_two_stage": float(second_regret["two_stage"].mean()),
        "portfolio_regret_trained": float(second_regret["trained"].mean()),
        "portfolio_final_loss": second.losses[-1],
    }
