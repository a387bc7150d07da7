"""Training with decigrad: the problems of `training`, one at a time in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """What both sides train: Adam, batches of 32, a linear predictor from zero or from least squares.

    Attributes:
        peer: what stands on the other side.
        epochs: after which regret is compared.
        rate: Adam's.
        repeat: epochs timed on each side, in turn.
        orders: of the samples, over which regret is averaged.
        fitted: start from least squares; else from zero.
        needs: the file of data that it reads, in the folder given by --data.
        unit: of the regret.
    """

    title: str
    peer: str
    epochs: int = 20
    rate: float = 0.01
    repeat: int = 7
    orders: int = 5
    fitted: bool = False
    needs: str = ""
    unit: str = "%"


PROBLEMS = {
    "grid": Problem("shortest path on a 5 × 5 grid, SPO+, 1,000 samples", "PyEPO, GLOP"),
    "knapsack": Problem("knapsack of 32 items × 2, SPO+, 1,000 samples", "PyEPO, SCIP", repeat=5),
    "tour": Problem("tour of 20 cities, SPO+, 32 samples", "PyEPO, HiGHS", epochs=3, repeat=2),
    "energy": Problem(
        "energy knapsack of 48 half-hours, capacity 120, SPO+, 550 days",
        "PyEPO, SCIP",
        epochs=10,
        rate=0.1,
        repeat=4,
        fitted=True,
        needs="icon/knapsack_Data.npz",
        unit="",
    ),
    "battery": Problem(
        "battery over 24 hours, regret through the QP, the days but the last fifth",
        "qpth",
        epochs=4,
        rate=0.001,
        repeat=3,
        orders=2,
        fitted=True,
        needs="storage/storage_data.csv",
        unit="USD/day",
    ),
}


@dataclass(frozen=True)
class Draw:
    """Features and true parameters of training and test, and what the peer's model is made of."""

    x: Array
    c: Array
    test_x: Array
    test_c: Array
    model: dict[str, Any]
    start: tuple[Array, Array] | None = None


_now: dict[str, Any] = {}


def begin(name: str, data: Path | None) -> Draw:
    """Make the layer, draw, compile every step by a short fit; the draw for the other side."""
    import decigrad as dg

    problem = PROBLEMS[name]
    layer, target, draw, recipe = _MAKERS[name](data)
    train = dg.Dataset(draw.x, targets={target: draw.c})
    test = dg.Dataset(draw.test_x, targets={target: draw.test_c}) if len(draw.test_x) else None
    _now.update(problem=problem, layer=layer, target=target, train=train, test=test, recipe=recipe)
    found = _fit(2)
    if not problem.fitted:
        return draw
    return Draw(draw.x, draw.c, draw.test_x, draw.test_c, draw.model, found.two_stage.coefficients)


def _fit(epochs: int, seed: int = 0) -> Any:
    import decigrad as dg

    problem: Problem = _now["problem"]
    loss = dg.losses.Regret() if _now["target"] == "log_price" else dg.losses.SPOPlus()
    return dg.fit(
        _now["recipe"], _now["layer"], _now["train"], loss, seed=seed, selection=None, epochs=epochs,
        learning_rate=problem.rate, warm_start=problem.fitted, averaging=False, progress=False,
    )  # fmt: skip


def optimal_values() -> Array:
    """Optimal values of the training samples, [N]."""
    return np.asarray(_now["layer"].solve(_now["train"].parameters).objective)


def epochs(count: int) -> list[float]:
    """Seconds of epochs; each call trains from the start."""
    return [float(s) for s in _fit(count).epoch_seconds]


def regret(seed: int) -> float:
    """Test regret after the problem's epochs: in percent of the optimal values, or absolute by unit."""
    import decigrad as dg

    found = dg.evaluate(_fit(_now["problem"].epochs, seed).predictor, _now["layer"], _now["test"])
    return 100.0 * found.normalized_regret if _now["problem"].unit == "%" else found.mean_regret


def score(weight: Array, bias: Array) -> float:
    """The same regret for a linear predictor of the other side."""
    layer, test, target = _now["layer"], _now["test"], _now["target"]
    predicted = test.features @ weight.T + bias
    decided = layer.solve({target: predicted.reshape(test.targets[target].shape)}).x
    optimum = layer.solve(test.parameters).objective
    lost = layer.sign * (np.asarray(layer.objective(decided, test.parameters)) - optimum)
    return float(100.0 * lost.sum() / np.abs(optimum).sum() if _now["problem"].unit == "%" else lost.mean())


# ------------------------------------------------------------------------------------------------ problems

Made = tuple[Any, str, Draw, Any]


def _generated(samples: Any, layer: Any, target: str, train: int, test: int, **model: Any) -> Made:
    import decigrad as dg

    x, c, _ = samples(train + test, 42, degree=4)
    return (
        layer,
        target,
        Draw(x[:train], c[:train], x[train:], c[train:], model),
        dg.Linear(standardize=False),
    )


def _grid(data: Path | None) -> Made:
    from decigrad import problems

    return _generated(problems.shortest_path_samples, problems.shortest_path_layer(), "cost", 1000, 1000)


def _knapsack(data: Path | None) -> Made:
    from decigrad import problems

    weights = problems.knapsack_weights(42)
    layer = problems.knapsack_layer(weights, 20.0)
    return _generated(
        problems.knapsack_samples, layer, "value", 1000, 1000, weights=weights, capacity=[20.0, 20.0]
    )


def _tour(data: Path | None) -> Made:
    from decigrad import problems

    return _generated(problems.tsp_samples, problems.tsp_layer(), "cost", 32, 0)


def _standardized(x: Array, test: Array) -> tuple[Array, Array]:
    axes = tuple(range(x.ndim - 1))
    mean, deviation = x.mean(axes), x.std(axes)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    return (x - mean) / scale, (test - mean) / scale


def _energy(data: Path | None) -> Made:
    import decigrad as dg
    from decigrad.problems import energy

    assert data is not None
    days = energy.load_energy_knapsack(data / PROBLEMS["energy"].needs)
    known, _, unseen = energy.energy_split(len(days.features), 0)
    x, test_x = _standardized(days.features[known], days.features[unseen])
    model = {"weights": days.weights[None], "capacity": [120.0]}
    draw = Draw(x, days.values[known], test_x, days.values[unseen], model)
    layer = energy.energy_knapsack_layer(days.weights, 120)
    return layer, "value", draw, dg.Linear(standardize=False, shared=True)


def _battery(data: Path | None) -> Made:
    import decigrad as dg
    from decigrad.problems import battery

    assert data is not None
    days = battery.load_battery_days(data / PROBLEMS["battery"].needs)
    cut = int(0.8 * len(days))
    train, test = battery.standardized(days.take(slice(cut)), days.take(slice(cut, None)))
    spec = battery.BatterySpec()
    draw = Draw(train.features, train.log_prices, test.features, test.log_prices, vars(spec))
    layer = dg.DecisionLayer(battery.battery_model(spec))
    return layer, "log_price", draw, dg.Linear(standardize=False)


_MAKERS: dict[str, Callable[[Path | None], Made]] = {
    "grid": _grid,
    "knapsack": _knapsack,
    "tour": _tour,
    "energy": _energy,
    "battery": _battery,
}


# ------------------------------------------------------------------------------------------------ tutorial


def tutorial(first: bool) -> float:
    """Seconds of both parts of the discopt tutorial: 600 differentiated solves, and their scores."""
    import jax

    from decigrad.cli._reproduction import Reproduction

    if first:
        _now["tutorial"] = Reproduction()
    with jax.enable_x64(True):
        began = time.perf_counter()
        _now["tutorial"].run(42)
        return time.perf_counter() - began
