"""The benchmark problems by name: which data, which predictor, which published figures stand beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems import energy
from decigrad.problems.benchmark import Benchmark, Cell, Draw
from decigrad.problems.knapsack import knapsack_layer, knapsack_samples, knapsack_weights
from decigrad.problems.matching import matching_layer, matching_samples
from decigrad.problems.newsvendor import newsvendor_model, newsvendor_samples
from decigrad.problems.ranking import ranking_layer, ranking_samples
from decigrad.problems.risk_portfolio import PUBLISHED as RISK_PUBLISHED
from decigrad.problems.risk_portfolio import (
    risk_portfolio_covariance,
    risk_portfolio_layer,
    risk_portfolio_samples,
)
from decigrad.problems.selection import selection_layer, selection_samples
from decigrad.problems.shortest_path import shortest_path_layer, shortest_path_samples
from decigrad.problems.terrain import terrain_layer, terrain_samples
from decigrad.problems.tsp import MEASURED as TSP_MEASURED
from decigrad.problems.tsp import tsp_layer, tsp_samples

TEST = 1000
"""Test samples of the generated problems."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        ModelError: there is none; the message lists all.
    """
    if name not in BENCHMARKS:
        raise ModelError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def _generated(
    samples: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]], target: str, n: int, **options: Any
) -> Callable[[int], Draw]:
    """`n` training samples and `TEST` test samples by seed, from one draw."""

    def draw(seed: int) -> Draw:
        x, c, expected = samples(n + TEST, seed, **options)
        train, test = (dg.Dataset(x[part], targets={target: c[part]}) for part in (slice(n), slice(n, None)))
        return Draw(train, test, {target: expected[n:]})

    return draw


def _pyepo(
    samples: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]], target: str, **options: Any
) -> Callable[[int], Draw]:
    """PyEPO's data for every seed: 2,000 draws with seed 42, in halves as scikit-learn splits them."""

    def draw(seed: int) -> Draw:
        x, c, expected = samples(2000, 42, **options)
        order = np.random.RandomState(42).permutation(2000)  # train_test_split(..., random_state=42)
        unseen, known = order[:1000], order[1000:]
        train, test = (dg.Dataset(x[part], targets={target: c[part]}) for part in (known, unseen))
        return Draw(train, test, {target: expected[unseen]})

    return draw


# -------------------------------------------------------------------------------------------- the problems

# 20 epochs of PyEPO 2.2.7 at its defaults: a linear predictor, Adam 1e-2, batches of 32.
_PYEPO_PATH = {
    "two-stage": 8.58, "mse": 8.42, "spo+": 7.34, "pfyl": 7.44, "aimle": 7.46, "listwise": 8.11,
    "pointwise": 8.43, "nid": 8.99, "nce": 10.5, "pairwise": 11.4, "map": 14.6, "dbb": 15.0, "pg": 15.6,
    "dpo": 21.6, "imle": 27.0,
}  # fmt: skip
_PYEPO_KNAPSACK = {"two-stage": 9.99, "mse": 8.9, "spo+": 8.6, "pfyl": 8.6, "aimle": 8.7, "listwise": 8.4}
# Elmachtoub and Grigas (2022), figure 3: 1,000 samples, noise ½, mean of 50 repetitions.
_GRIGAS = {
    1: {"spo+": 15.77, "two-stage": 15.65}, 2: {"spo+": 10.68, "two-stage": 10.65},
    4: {"spo+": 7.78, "two-stage": 8.96}, 6: {"spo+": 8.33, "two-stage": 12.93},
    8: {"spo+": 10.66, "two-stage": 21.38},
}  # fmt: skip


def _steps(samples: int) -> dict[str, Any]:
    """Epochs by size of the data, so that large data do not take more steps than they need."""
    return {"epochs": 30 if samples <= 1000 else 6}


def _path_cells(data: Path | None) -> list[Cell]:
    cells = [
        Cell(
            "PyEPO", shortest_path_layer, _pyepo(shortest_path_samples, "cost"), _PYEPO_PATH, _steps(1000),
            fixed=True,
        )
    ]  # fmt: skip
    for degree in (1, 2, 4, 6, 8):
        for n in (100, 1000, 5000):
            drawn = _generated(shortest_path_samples, "cost", n, degree=degree)
            published = _GRIGAS[degree] if n == 1000 else {}
            label, options = f"degree {degree}, {n} samples", _steps(n)
            cells.append(Cell(label, shortest_path_layer, drawn, published, options, thorough=False))
    return cells


def _knapsack_cells(data: Path | None) -> list[Cell]:
    def layer() -> dg.DecisionLayer:
        return knapsack_layer(knapsack_weights(42), 20.0)

    return [
        Cell("PyEPO", layer, _pyepo(knapsack_samples, "value"), _PYEPO_KNAPSACK, {"epochs": 20}, fixed=True)
    ]


def _tsp_cells(data: Path | None) -> list[Cell]:
    options = {"epochs": 6, "selection": dg.HoldOut()}
    return [Cell("20 cities", tsp_layer, _pyepo(tsp_samples, "cost"), TSP_MEASURED, options, fixed=True)]


def _simple(layer: Any, samples: Any, target: str, label: str) -> Callable[[Path | None], list[Cell]]:
    return lambda data: [Cell(label, layer, _generated(samples, target, 1000), options={"epochs": 20})]


def _energy_draw(features: np.ndarray, values: np.ndarray, target: str) -> Callable[[int], Draw]:
    def draw(seed: int) -> Draw:
        known, _, unseen = energy.energy_split(len(features), seed)
        train, test = (dg.Dataset(features[part], targets={target: values[part]}) for part in (known, unseen))
        return Draw(train, test)

    return draw


def _existing(data: Path | None) -> Path:
    if data is None:
        raise ModelError("this benchmark reads files of yours: name their directory")
    return data


def _energy_knapsack_cells(data: Path | None) -> list[Cell]:
    found = energy.load_energy_knapsack(_existing(data) / "knapsack_Data.npz")

    def layer(capacity: int) -> Callable[[], dg.DecisionLayer]:
        return lambda: energy.energy_knapsack_layer(found.weights, capacity)

    published = energy.PUBLISHED["knapsack"]
    drawn = _energy_draw(found.features, found.values, "value")
    return [
        Cell(
            f"capacity {q}",
            layer(q),
            drawn,
            {m: float(f[q]) for m, f in published.items()},
            {"epochs": 12},
            thorough=q == 60,
        )
        for q in (60, 120, 180)
    ]


def _scheduling_cells(data: Path | None) -> list[Cell]:
    days = energy.load_energy_prices(_existing(data) / "prices2013.dat")
    instance = energy.load_scheduling(_existing(data) / "load1_day01.txt")
    published = {m: float(f["load1"]) for m, f in energy.PUBLISHED["scheduling"].items()}
    drawn = _energy_draw(days.features, days.prices, "price")
    options = {"epochs": 2, "selection": dg.HoldOut()}
    model = energy.scheduling_model(instance)
    return [Cell("load1", lambda: dg.DecisionLayer(model), drawn, published, options)]


def _risk_cells(data: Path | None) -> list[Cell]:
    def layer() -> dg.DecisionLayer:
        return risk_portfolio_layer(risk_portfolio_covariance(42))

    cells = []
    for degree in (1, 4, 8, 16):
        published = {m: figures[degree] for m, figures in RISK_PUBLISHED.items()}
        drawn = _fixed_model(risk_portfolio_samples, "returns", 1000, degree=degree)
        cells.append(Cell(f"degree {degree}", layer, drawn, published, {"epochs": 20}))
    return cells


def _fixed_model(samples: Any, target: str, n: int, **options: Any) -> Callable[[int], Draw]:
    """One draw with seed 42, whose instance the layer has too; `n` and `TEST` samples of it by seed."""

    def draw(seed: int) -> Draw:
        x, c, expected = samples(2 * (n + TEST), 42, **options)
        order = np.random.default_rng(seed).permutation(len(x))
        known, unseen = order[:n], order[n : n + TEST]
        train, test = (dg.Dataset(x[part], targets={target: c[part]}) for part in (known, unseen))
        return Draw(train, test, {target: expected[unseen]})

    return draw


def _newsvendor_cells(data: Path | None) -> list[Cell]:
    def layer(budget: float | None) -> Callable[[], dg.DecisionLayer]:
        return lambda: dg.DecisionLayer(newsvendor_model(5, budget=budget))

    def drawn(seed: int) -> Draw:  # the expected demand is not the best order, so no floor
        return dataclasses.replace(_generated(newsvendor_samples, "demand", 1000)(seed), expected=None)

    options = {"epochs": 10, "selection": dg.HoldOut()}
    return [
        Cell("no budget" if b is None else f"budget {b:g}", layer(b), drawn, options=options)
        for b in (None, 20.0)
    ]


def _terrain_cells(data: Path | None) -> list[Cell]:
    def draw(seed: int) -> Draw:
        images, costs = terrain_samples(600, seed)
        parts = slice(300), slice(300, None)
        train, test = (dg.Dataset(images[part], targets={"cost": costs[part]}) for part in parts)
        return Draw(train, test)

    return [Cell("12 × 12", terrain_layer, draw, options={"epochs": 20, "selection": dg.HoldOut()})]


_POLYNOMIAL = (
    "A linear predictor of costs that are a polynomial of the features. Training data, test data and "
    "training are drawn anew for every seed; 1,000 test samples."
)
_TELLING = ("two-stage", "mse", "spo+", "pfyl", "nid", "cave+", "pairwise", "map", "auto")
_FEW_SOLVES = ("two-stage", "mse", "spo+ relaxed", "nce", "pairwise", "map", "listwise", "pointwise", "auto")
_HOT = "a solve is expensive: a fifth of the training data is held out, few epochs, few methods."

BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "shortest-path",
            "Grid shortest path",
            "The 5 × 5 grid of Elmachtoub and Grigas (2022), noise ½. " + _POLYNOMIAL + " The first cell is "
            "PyEPO's: its 2,000 draws of degree 4 with seed 42, in halves; seeds shuffle and fold. "
            "Published: there, 20 epochs of PyEPO 2.2.7; at 1,000 samples, Elmachtoub and Grigas.",
            _path_cells,
            summary=("PyEPO", "degree 1, 1000 samples", "degree 8, 1000 samples"),
        ),
        Benchmark(
            "knapsack",
            "Knapsack",
            "PyEPO's knapsack: 32 items, two dimensions, capacity 20, degree 4, its 2,000 draws with seed 42 "
            "in halves; seeds shuffle and fold. Published: 20 epochs of PyEPO 2.2.7 (listwise: 10).",
            _knapsack_cells,
        ),
        Benchmark(
            "tsp",
            "Traveling salesman",
            "PyEPO's 20 cities, degree 4, its 2,000 draws with seed 42 in halves. Published: PyEPO 2.2.7. "
            "Here " + _HOT,
            _tsp_cells,
            methods=_TELLING,
        ),
        Benchmark(
            "energy-knapsack",
            "Energy knapsack",
            "Half-hours of Irish electricity prices as items; mean regret a day over 139 test days. One "
            "linear predictor for all half-hours, trained on 550 days; seeds shuffle the days. Published: "
            "Mulamba et al. (2021), who tune on 100 further days.",
            _energy_knapsack_cells,
            predictor=dg.Linear(shared=True),
            normalized=False,
            needs_data=True,
        ),
        Benchmark(
            "energy-scheduling",
            "Energy scheduling",
            "The instance load1 against Irish electricity prices; mean regret a day over 139 test days. One "
            "linear predictor for all half-hours, trained on 550 days; seeds shuffle the days. Published: "
            "Mulamba et al. (2021). Here " + _HOT,
            _scheduling_cells,
            predictor=dg.Linear(shared=True),
            methods=_FEW_SOLVES,
            normalized=False,
            needs_data=True,
        ),
        Benchmark(
            "top-k",
            "Top-k selection",
            "The 5 cheapest of 20 items, degree 4. " + _POLYNOMIAL,
            _simple(selection_layer, selection_samples, "cost", "5 of 20"),
        ),
        Benchmark(
            "matching",
            "Bipartite matching",
            "6 rows assigned to 6 columns, degree 4. " + _POLYNOMIAL,
            _simple(matching_layer, matching_samples, "cost", "6 × 6"),
        ),
        Benchmark(
            "ranking",
            "Ranking",
            "10 items in the order of their relevance, degree 4. " + _POLYNOMIAL,
            _simple(ranking_layer, ranking_samples, "relevance", "10 items"),
        ),
        Benchmark(
            "risk-portfolio",
            "Portfolio under a limit on risk",
            "50 assets, the returns of Elmachtoub and Grigas (2022); 1,000 training and 1,000 test samples "
            "by seed, out of 4,000. Published: from the results that they publish with their code.",
            _risk_cells,
        ),
        Benchmark(
            "newsvendor",
            "Newsvendor",
            "Orders of five products before the demand is known, with and without a budget; mean regret by "
            "sample. A linear predictor of one number for each demand; 1,000 training and 1,000 test samples "
            "are drawn anew for every seed; a fifth of the training data is held out.",
            _newsvendor_cells,
            methods=("two-stage", "mse", "quantile", "regret", "sfge"),
            normalized=False,
        ),
        Benchmark(
            "terrain",
            "Terrain",
            "Paths across maps that are seen only in images, 300 to train and 300 to test by seed; a small "
            "convolutional network. A fifth of the training data is held out.",
            _terrain_cells,
            predictor=dg.CNN(positive=True),
            methods=("two-stage", "spo+", "pfyl", "nid", "dbb", "map", "pairwise", "auto"),
        ),
    )
}
"""All benchmarks, by name."""
