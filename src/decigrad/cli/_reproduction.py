"""Both parts of the tutorial through the library's own layer: the same draws, loop and score.

The tutorial trains by hand, sample by sample. Here a step is one batch through a `DecisionLayer` and
`jax.value_and_grad`; every figure agrees to its last printed digit because the gradient is the same number.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import decigrad as dg
from decigrad.predictors import least_squares, outputs_of
from decigrad.problems import allocation

BATCH = 10
Array = Any


@dataclass(frozen=True)
class Descent:
    """Predictor, loss by epoch, the predictions [epochs·N, n] that were solved, seconds after compiling."""

    predictor: Any
    losses: list[float]
    queries: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Part:
    """One part, trained and scored.

    `weights` [n, features] and `decisions` [B, n] on the test set are by predictor: "two-stage", "trained"
    (decisions also "oracle"); `cost` is the tutorial's score of a decision, `full` the model's objective.
    """

    recipe: Recipe
    train: allocation.Samples
    test: allocation.Samples
    weights: dict[str, np.ndarray]
    descent: Descent
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
        solved = self.recipe.layer.solve({self.recipe.parameter: self.descent.queries})
        return solved.ok.reshape(len(self.descent.losses), -1).sum(axis=1)


class Recipe:
    """The tutorial's training: plain gradient descent in batches of ten, on a linear predictor without bias.

    Arguments:
        model: with one predicted parameter and one variable, named x.
        rate: learning rate.
        loss: what training and the tutorial's regret count.
    """

    def __init__(self, model: dg.Model, rate: float, loss: dg.losses.Regret) -> None:
        self.layer = dg.DecisionLayer(model)
        (self.parameter,) = self.layer.predicts
        self.rate = rate
        self.loss = loss
        self._step = jax.jit(self._unjitted_step)

    def dataset(self, samples: allocation.Samples) -> dg.Dataset:
        """Samples under the parameter's name."""
        return dg.Dataset(samples[0], targets={self.parameter: samples[1]})

    def two_stage(self, samples: allocation.Samples) -> Any:
        """Least squares without intercept."""
        data, outputs = self.dataset(samples), outputs_of(self.layer)
        return least_squares(dg.Linear(bias=False).init(data, outputs), data)

    def decide(self, predicted: np.ndarray) -> np.ndarray:
        """Optimal decisions [B, n] for predictions [B, n]."""
        return self.layer.solve({self.parameter: predicted}).x["x"]

    def cost(self, x: Array, true: Array, loss: dg.losses.Regret | None = None) -> Array:
        """What decisions [B, n] cost under true values [B, n], by the recipe's own score or another's."""
        return (loss or self.loss).score(self.layer, {"x": x}, {self.parameter: true})

    def descend(self, train: allocation.Samples, orders: np.ndarray, start: Any) -> Descent:
        """One pass over the samples in each of the given orders, from the given predictor."""
        features, true = train
        first = orders[0][:BATCH]
        step = self._step.lower(start, features[first], true[first]).compile()
        clock = time.perf_counter()
        predictor, losses, queries = start, [], []
        for order in orders:
            values = []
            for batch in order.reshape(-1, BATCH):
                predictor, value, predicted = step(predictor, features[batch], true[batch])
                values.append(float(value))
                queries.append(np.asarray(predicted))
            losses.append(float(np.mean(values)))
        return Descent(predictor, losses, np.concatenate(queries), time.perf_counter() - clock)

    def _unjitted_step(self, predictor: Any, features: Array, true: Array) -> tuple[Any, Array, Array]:
        def mean_cost(predictor: Any) -> tuple[Array, Array]:
            predicted = jax.vmap(predictor)(features)
            return self.cost(self.layer(predicted)["x"], true).mean(), predicted[self.parameter]

        (value, predicted), gradient = jax.value_and_grad(mean_cost, has_aux=True)(predictor)
        moved = jax.tree_util.tree_map(lambda w, g: w - self.rate * g, predictor, gradient)
        return moved, value, predicted


def allocation_recipe() -> Recipe:
    """Part 1: trained and scored on c·x, which leaves out the ε‖x‖² that the decisions minimize too."""
    model = allocation.allocation_model()
    linear = dg.sum(model.parameters["cost"] * model.variables["x"])
    return Recipe(model, rate=0.05, loss=dg.losses.Regret(cost=linear))


def portfolio_recipe() -> Recipe:
    """Part 2: trained and scored on the model's own objective, the negative utility."""
    return Recipe(allocation.returns_model(), rate=0.1, loss=dg.losses.Regret())


def optimizer(rate: float) -> Any:
    """Plain gradient descent."""
    import optax

    return optax.sgd(rate)


def run_part(recipe: Recipe, train: allocation.Samples, test: allocation.Samples, orders: np.ndarray) -> Part:
    """The two-stage predictor, then training from there; both scored on the test set."""
    start = recipe.two_stage(train)
    descent = recipe.descend(train, orders, start)
    weights = {name: p.coefficients[0] for name, p in (("two-stage", start), ("trained", descent.predictor))}
    predictions = {name: test[0] @ w.T for name, w in weights.items()} | {"oracle": test[1]}
    decisions = {name: recipe.decide(p) for name, p in predictions.items()}
    full = dg.losses.Regret()
    return Part(
        recipe=recipe,
        train=train,
        test=test,
        weights=weights,
        descent=descent,
        decisions=decisions,
        cost={name: np.asarray(recipe.cost(x, test[1])) for name, x in decisions.items()},
        full={name: np.asarray(recipe.cost(x, test[1], full)) for name, x in decisions.items()},
    )


# ------------------------------------------------------------------------------------- figures, as printed


def allocation_figures(part: Part) -> dict[str, str]:
    """What part 1 of the tutorial prints; keys and format of `_published.ALLOCATION`."""
    costs, oracle = part.train[1], part.cost["oracle"]
    before, after = part.regret("two-stage"), part.regret("trained")
    demo = part.recipe.layer.model.solve({"cost": [0.8, 1.0, 1.2]})
    first = part.recipe.layer.model.solve({"cost": part.test[1][0]})
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
        **_rows("costs .8 1 1.2: dx*/dc", demo.sensitivity_matrix(), 4),
        **_losses(part),
        "training loss, reduction": f"{part.descent.losses[0] - part.descent.losses[-1]:.4f}",
        **_found(part),
        "trained, test MSE": f"{part.test_error('trained'):.4f}",
        "trained, average cost": f"{part.cost['trained'].mean():.4f}",
        "trained, average regret": f"{after.mean():.4f}",
        "trained, max regret": f"{after.max():.4f}",
        "regret reduction": f"{reduction(before, after):.1f}%",
        **_rows("two-stage weights", two_stage, 2),
        **_rows("trained weights", trained, 2),
        "relative weight change": f"{change:.3f}",
        "two-stage, cheapest right": _cheapest(part, "two-stage"),
        "trained, cheapest right": _cheapest(part, "trained"),
        "test instance 0: true costs": vector(part.test[1][0], 3),
        "test instance 0: cheapest": f"{np.argmin(part.test[1][0]) + 1}",
        "test instance 0: x*": vector(first.x["x"], 4),
        "test instance 0: objective": f"{first.objective:.4f}",
        "test instance 0: d obj*/dc": vector(first.gradient("cost"), 4),
        **_rows("test instance 0: dx*/dc", first.sensitivity_matrix(), 4),
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
    """A vector as NumPy prints it, without brackets."""
    text = np.array2string(values, precision=precision, suppress_small=True)
    return " ".join(text.strip("[]").split())


def reduction(before: np.ndarray, after: np.ndarray) -> float:
    """By how much the mean fell, in percent."""
    return float((before.mean() - after.mean()) / before.mean() * 100)


def _losses(part: Part) -> dict[str, str]:
    return {
        f"training loss, epoch {i}": f"{value:.4f}" for i, value in enumerate(part.descent.losses, start=1)
    }


def _rows(name: str, matrix: np.ndarray, precision: int) -> dict[str, str]:
    # Printed as one matrix: NumPy gives all entries of a matrix the same digits.
    text = np.array2string(matrix, precision=precision, suppress_small=True)
    rows = text.replace("[", "").split("]")
    return {f"{name}, row {i}": " ".join(rows[i - 1].split()) for i in range(1, len(matrix) + 1)}


def _found(part: Part) -> dict[str, str]:
    return {"derivatives found, per epoch": f"{part.found_derivatives().min()}/{len(part.train[0])}"}


def _cheapest(part: Part, method: str) -> str:
    right = int(np.sum(np.argmin(part.predict(method), axis=1) == np.argmin(part.test[1], axis=1)))
    return f"{right}/{len(part.test[0])} ({100 * right / len(part.test[0]):.0f}%)"
