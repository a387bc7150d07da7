"""Both parts of the tutorial through the library's own layer: the same draws, loop and score.

The tutorial trains by hand, sample by sample. Here a step is one batch through a `DecisionLayer` and
`jax.value_and_grad`; every figure agrees to its last printed digit because the gradient is the same number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import decigrad as dg
from decigrad.problems import allocation

BATCH = 10
Array = Any
Score = Callable[[Array, Array], Array]
"""(decisions [B, n], true values [B, n]) → cost of each decision [B]."""


@dataclass(frozen=True)
class Part:
    """One part, trained and scored.

    `weights` [n, features] and `decisions` [B, n] on the test set are by predictor: "two-stage", "trained"
    (decisions also "oracle"); `cost` is the tutorial's score of a decision, `full` the model's objective.
    `queries` [epochs·N, n] are the predictions that training solved, in order.
    """

    layer: dg.DecisionLayer
    parameter: str
    train: allocation.Samples
    test: allocation.Samples
    weights: dict[str, np.ndarray]
    losses: list[float]
    queries: np.ndarray
    decisions: dict[str, np.ndarray]
    cost: dict[str, np.ndarray]
    full: dict[str, np.ndarray]

    def predict(self, method: str) -> np.ndarray:
        """Predictions [B, n] on the test set."""
        return self.test[0] @ self.weights[method].T

    def test_error(self, method: str) -> float:
        """Mean squared prediction error on the test set."""
        return float(np.mean((self.predict(method) - self.test[1]) ** 2))

    def regret(self, method: str, *, full: bool = False) -> np.ndarray:
        """Cost of the decision beyond that of the true optimum [B], in the tutorial's score or in full."""
        scored = self.full if full else self.cost
        return scored[method] - scored["oracle"]

    def found_derivatives(self) -> np.ndarray:
        """Training solves [epochs] that have a derivative: all that end with an optimal decision."""
        return self.layer.solve({self.parameter: self.queries}).ok.reshape(len(self.losses), -1).sum(axis=1)

    def free_variables(self) -> np.ndarray:
        """Number of variables [epochs·N] that were off their bounds in each training solve."""
        x = self.layer.solve({self.parameter: self.queries}).x["x"]
        return np.sum((x > 1e-9) & (x < 1 - 1e-9), axis=1)


def run_part(
    model: dg.Model,
    train: allocation.Samples,
    test: allocation.Samples,
    orders: np.ndarray,
    *,
    rate: float,
    score: Score | None = None,
) -> Part:
    """Least squares without intercept, then gradient steps through the layer over the given orders.

    `score` is what training and the tutorial's regret count; None: the model's own objective.
    """
    layer = dg.DecisionLayer(model)
    (parameter,) = layer.predicts

    def cost(x: Array, true: Array) -> Array:
        return layer.objective({"x": x}, {parameter: true}) if score is None else score(x, true)

    two_stage = np.linalg.lstsq(*train, rcond=None)[0].T
    trained, losses, queries = descend(layer, parameter, train, orders, two_stage, rate, cost)
    predictions = {"two-stage": test[0] @ two_stage.T, "trained": test[0] @ trained.T, "oracle": test[1]}
    decisions = {name: layer.solve({parameter: p}).x["x"] for name, p in predictions.items()}
    return Part(
        layer,
        parameter,
        train,
        test,
        weights={"two-stage": two_stage, "trained": trained},
        losses=losses,
        queries=queries,
        decisions=decisions,
        cost={name: np.asarray(cost(x, test[1])) for name, x in decisions.items()},
        full={
            name: np.asarray(layer.objective({"x": x}, {parameter: test[1]})) for name, x in decisions.items()
        },
    )


def descend(
    layer: dg.DecisionLayer,
    parameter: str,
    train: allocation.Samples,
    orders: np.ndarray,
    start: np.ndarray,
    rate: float,
    cost: Score,
) -> tuple[np.ndarray, list[float], np.ndarray]:
    """Plain gradient descent on the mean cost of a batch: weights, loss by epoch, predictions solved."""

    @jax.jit
    def step(weights: Array, features: Array, true: Array) -> tuple[Array, Array, Array]:
        def loss(weights: Array) -> tuple[Array, Array]:
            predicted = features @ weights.T
            return cost(layer({parameter: predicted})["x"], true).mean(), predicted

        (value, predicted), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        return weights - rate * gradient, value, predicted

    features, true = train
    weights, losses, queries = jnp.asarray(start), [], []
    for order in orders:
        values = []
        for batch in order.reshape(-1, BATCH):
            weights, value, predicted = step(weights, features[batch], true[batch])
            values.append(float(value))
            queries.append(np.asarray(predicted))
        losses.append(float(np.mean(values)))
    return np.asarray(weights), losses, np.concatenate(queries)


# ------------------------------------------------------------------------------------- figures, as printed


def allocation_figures(part: Part) -> dict[str, str]:
    """What part 1 of the tutorial prints; keys and format of `_published.ALLOCATION`."""
    costs, oracle = part.train[1], part.cost["oracle"]
    before, after = part.regret("two-stage"), part.regret("trained")
    demo = part.layer.model.solve({"cost": [0.8, 1.0, 1.2]})
    first = part.layer.model.solve({"cost": part.test[1][0]})
    two_stage, trained = part.weights["two-stage"], part.weights["trained"]
    change = np.linalg.norm(trained - two_stage) / np.linalg.norm(two_stage)
    in_sample = np.mean((part.train[0] @ two_stage.T - costs) ** 2)
    return {
        "first sample's true costs": vector(costs[0], 3),
        "cost range, from": f"{costs.min():.2f}",
        "cost range, to": f"{costs.max():.2f}",
        "cost spread": f"{(costs.max(1) - costs.min(1)).mean():.2f}",
        "oracle, average cost": f"{oracle.mean():.4f}",
        "oracle, lowest cost": f"{oracle.min():.4f}",
        "oracle, highest cost": f"{oracle.max():.4f}",
        "two-stage, train MSE": f"{in_sample:.4f}",
        "two-stage, test MSE": f"{part.test_error('two-stage'):.4f}",
        "two-stage, average cost": f"{part.cost['two-stage'].mean():.4f}",
        "two-stage, average regret": f"{before.mean():.4f}",
        "two-stage, max regret": f"{before.max():.4f}",
        "costs .8 1 1.2: x*": vector(demo.x["x"], 4),
        "costs .8 1 1.2: objective": f"{demo.objective:.4f}",
        "costs .8 1 1.2: dx*/dc": vector(demo.sensitivity_matrix(), 4),
        **_losses(part),
        "training loss, reduction": f"{part.losses[0] - part.losses[-1]:.4f}",
        **_found(part),
        "trained, test MSE": f"{part.test_error('trained'):.4f}",
        "trained, average cost": f"{part.cost['trained'].mean():.4f}",
        "trained, average regret": f"{after.mean():.4f}",
        "trained, max regret": f"{after.max():.4f}",
        "regret reduction": f"{reduction(before, after):.1f}%",
        "two-stage weights": vector(two_stage, 2),
        "trained weights": vector(trained, 2),
        "relative weight change": f"{change:.3f}",
        "two-stage, cheapest right": _cheapest(part, "two-stage"),
        "trained, cheapest right": _cheapest(part, "trained"),
        "test instance 0: true costs": vector(part.test[1][0], 3),
        "test instance 0: cheapest": f"{np.argmin(part.test[1][0]) + 1}",
        "test instance 0: x*": vector(first.x["x"], 4),
        "test instance 0: objective": f"{first.objective:.4f}",
        "test instance 0: d obj*/dc": vector(first.gradient("cost"), 4),
        "test instance 0: dx*/dc": vector(first.sensitivity_matrix(), 4),
    }


def portfolio_figures(part: Part) -> dict[str, str]:
    """What part 2 prints; keys and format of `_published.PORTFOLIO`. Utility is the negative objective."""
    before, after = part.regret("two-stage"), part.regret("trained")
    return {
        "oracle, average utility": f"{-part.cost['oracle'].mean():.4f}",
        "two-stage, average utility": f"{-part.cost['two-stage'].mean():.4f}",
        "two-stage, average regret": f"{before.mean():.4f}",
        "two-stage, test MSE": f"{part.test_error('two-stage'):.4f}",
        **_losses(part),
        **_found(part),
        "trained, test MSE": f"{part.test_error('trained'):.4f}",
        "trained, average utility": f"{-part.cost['trained'].mean():.4f}",
        "trained, average regret": f"{after.mean():.4f}",
        "regret reduction": f"{reduction(before, after):.1f}%",
    }


def vector(values: np.ndarray, precision: int) -> str:
    """A vector or matrix as NumPy prints it, without brackets; rows are separated by a slash."""
    text = np.array2string(np.atleast_2d(values), precision=precision, suppress_small=True)
    rows = text.replace("[", "").split("]")
    return " / ".join(" ".join(row.split()) for row in rows if row.strip())


def reduction(before: np.ndarray, after: np.ndarray) -> float:
    """By how much the mean fell, in percent."""
    return float((before.mean() - after.mean()) / before.mean() * 100)


def _losses(part: Part) -> dict[str, str]:
    return {f"training loss, epoch {i}": f"{value:.4f}" for i, value in enumerate(part.losses, start=1)}


def _found(part: Part) -> dict[str, str]:
    return {"derivatives found, per epoch": f"{part.found_derivatives().min()}/{len(part.train[0])}"}


def _cheapest(part: Part, method: str) -> str:
    right = int(np.sum(np.argmin(part.predict(method), axis=1) == np.argmin(part.test[1], axis=1)))
    return f"{right}/{len(part.test[0])} ({100 * right / len(part.test[0]):.0f}%)"
