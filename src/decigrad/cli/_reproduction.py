"""Both parts of the tutorial through `dg.fit`: the same draws, the same steps, the same score.

The tutorial trains by hand, sample by sample. Here its loop is one call: `Linear(bias=False)` from two-stage
on, plain gradient descent in batches of ten, shuffled by the tutorial's own stream of random numbers. Every
figure agrees to its last printed digit because the gradient is the same number.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.problems import allocation
from decigrad.program import QuadraticProgram, RawResult, Status
from decigrad.solvers import DAQP

EPOCHS, BATCH = 10, 10
Array = Any


class Watched:
    """DAQP, remembering what it was asked: `calls` holds the linear costs [B, n] and the answers."""

    name = "daqp"
    host = True

    def __init__(self) -> None:
        self.solver = DAQP()
        self.calls: list[tuple[np.ndarray, RawResult]] = []

    def refuses(self, program: QuadraticProgram) -> str | None:
        """As DAQP."""
        return self.solver.refuses(program)

    def __call__(self, program: QuadraticProgram) -> RawResult:
        raw = self.solver(program)
        self.calls.append((np.array(program.q, np.float64), raw))
        return raw


@dataclass(frozen=True)
class Descent:
    """Training as it went: predictors, mean cost by epoch, and every solve of every step.

    `costs` and `x` [epochs·N, n] are the linear costs that were decided for and the decisions.
    """

    two_stage: Any
    predictor: Any
    losses: list[float]
    costs: np.ndarray
    x: np.ndarray
    solved: np.ndarray


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
        return self.descent.solved.reshape(len(self.descent.losses), -1).sum(axis=1)


class Recipe:
    """The tutorial's training: plain gradient descent in batches of ten, on a linear predictor without bias.

    Arguments:
        model: with one predicted parameter and one variable, named x.
        rate: learning rate.
        loss: what training and the tutorial's regret count.
    """

    def __init__(self, model: dg.Model, rate: float, loss: dg.losses.Regret) -> None:
        self.layer = dg.DecisionLayer(model, solver="daqp")
        (self.parameter,) = self.layer.predicts
        self.rate = rate
        self.loss = loss
        self._watched = Watched()
        self._training = dg.DecisionLayer(model, solver=self._watched)

    def dataset(self, samples: allocation.Samples) -> dg.Dataset:
        """Samples under the parameter's name."""
        return dg.Dataset(samples[0], targets={self.parameter: samples[1]})

    @property
    def options(self) -> dict[str, Any]:
        """The options of `dg.fit` that make it the tutorial's loop."""
        return {
            "selection": None,
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "optimizer": gradient_descent(self.rate),
        }

    def decide(self, predicted: np.ndarray) -> np.ndarray:
        """Optimal decisions [B, n] for predictions [B, n]."""
        return self.layer.solve({self.parameter: predicted}).x["x"]

    def cost(self, x: Array, true: Array, loss: dg.losses.Regret | None = None) -> Array:
        """What decisions [B, n] cost under true values [B, n], by the recipe's own score or another's."""
        return (loss or self.loss).score(self.layer, {"x": x}, {self.parameter: true})

    def descend(self, train: allocation.Samples, rng: np.random.RandomState) -> Descent:
        """Least squares, then ten epochs; every epoch takes one permutation from `rng`."""
        self._watched.calls.clear()
        data = self.dataset(train)
        result = dg.fit(dg.Linear(bias=False), self._training, data, self.loss, seed=rng, **self.options)
        # `fit` reports regret; the tutorial prints the cost itself, and an epoch sees every sample once.
        optimal = float(np.mean(self.cost(self.decide(train[1]), train[1])))
        steps = [(q, raw) for q, raw in self._watched.calls if len(raw.x) == BATCH]
        return Descent(
            two_stage=result.two_stage,
            predictor=result.predictor,
            losses=[loss + optimal for loss in result.history["loss"]],
            costs=np.concatenate([q for q, _ in steps]),
            x=np.concatenate([raw.x for _, raw in steps]),
            solved=np.concatenate([raw.status == Status.OPTIMAL for _, raw in steps]),
        )


def allocation_recipe() -> Recipe:
    """Part 1: trained and scored on c·x, which leaves out the ε‖x‖² that the decisions minimize too."""
    model = allocation.allocation_model()
    linear = dg.sum(model.parameters["cost"] * model.variables["x"])
    return Recipe(model, rate=0.05, loss=dg.losses.Regret(cost=linear))


def portfolio_recipe() -> Recipe:
    """Part 2: trained and scored on the model's own objective, the negative utility."""
    return Recipe(allocation.returns_model(), rate=0.1, loss=dg.losses.Regret())


@functools.lru_cache
def gradient_descent(rate: float) -> Any:
    """Plain gradient descent; one object for each rate, since optimizers are compared by identity."""
    import optax

    return optax.sgd(rate)


def run_part(
    recipe: Recipe, train: allocation.Samples, test: allocation.Samples, rng: np.random.RandomState
) -> Part:
    """The two-stage predictor, then training from there; both scored on the test set."""
    descent = recipe.descend(train, rng)
    predictors = {"two-stage": descent.two_stage, "trained": descent.predictor}
    weights = {name: p.coefficients[0] for name, p in predictors.items()}
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


class Reproduction:
    """Both parts from one stream of random numbers, in the tutorial's order of draws."""

    def __init__(self) -> None:
        self.recipes = allocation_recipe(), portfolio_recipe()

    def run(self, seed: int) -> tuple[Part, Part]:
        """Draw, fit, train and score; the same seed gives the same bits."""
        rng = np.random.RandomState(seed)
        parts = []
        for recipe, draw in zip(
            self.recipes, (allocation.allocation_samples, allocation.returns_samples), strict=True
        ):
            train, test = draw(30, rng), draw(15, rng)
            parts.append(run_part(recipe, train, test, rng))
        return parts[0], parts[1]


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
