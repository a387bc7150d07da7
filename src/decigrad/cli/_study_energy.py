"""`decigrad study energy`: a knapsack of half-hours at Irish electricity prices, walk-forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import decigrad as dg
from decigrad.cli._study_output import Study, Table, interval_text, joined
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.problems import energy
from decigrad.splits import walk_forward

BLOCK = 7  # days kept together by the bootstrap
METHODS = ("two-stage", "mse", "spo+", "imle")


@dataclass(frozen=True)
class Plan:
    """Sizes of the study."""

    capacities: tuple[int, ...] = (60, 120, 180)
    folds: int = 4
    test: int = 97
    """Days of one test, about three months."""
    epochs: int = 12


QUICK = Plan(capacities=(60,), folds=1, epochs=2)


def run_energy(data: Path, seeds: int = 5, report: Path | None = None, quick: bool = False) -> Study:
    """Run the study on the files of the ICON / PredOpt benchmarks, print it, write it where `report` says.

    Arguments:
        data: directory of `knapsack_Data.npz`; see `problems.load_energy_knapsack`.
        seeds: how often training is repeated; a seed shuffles the samples.
        report: path of the HTML page; JSON and Markdown are written beside it. None: terminal only.
        quick: one capacity, one test, two seeds at most, few epochs.

    Raises:
        FileNotFoundError, ModelError: the file is missing or is not what is expected.
    """
    days = energy.load_energy_knapsack(data / "knapsack_Data.npz")
    study = study_energy(days, QUICK if quick else Plan(), range(min(seeds, 2) if quick else seeds))
    return study.publish(f"decigrad study energy --data DIRECTORY --seeds {seeds}", report, quick)


def study_energy(days: energy.EnergyKnapsack, plan: Plan, seeds: Iterable[int]) -> Study:
    """The study on any days in the order of time; see `run_energy`."""
    data = dg.Dataset(days.features, targets={"value": days.values})
    folds = list(walk_forward(data, plan.folds, test=plan.test))
    settings = {
        "days": f"{len(data)} of 48 half-hours, in the order of time",
        "walk-forward": f"{plan.folds} tests of {plan.test} days; training on all days before",
        "first training": f"{len(folds[0][0])} days",
        "predictor": "linear, the same for all half-hours, of 8 features",
        "selection": f"five folds of the training days, each a span of time; at most {plan.epochs} epochs",
    }
    comparisons, rows = {}, []
    for capacity in plan.capacities:
        layer = energy.energy_knapsack_layer(days.weights, capacity)
        runs: dict[str, list[Run]] = {method: [] for method in METHODS}
        for method in METHODS:
            for seed in seeds:
                fits = [_fitted(method, layer, train, plan, seed) for train, _ in folds]
                judged = [
                    dg.evaluate(fit.predictor, layer, test, name=method)
                    for fit, (_, test) in zip(fits, folds, strict=True)
                ]
                runs[method].append(Run(seed, joined(judged), {}, sum(fit.seconds for fit in fits)))
                rows.append(
                    [f"capacity {capacity}", method, seed, *(f"{e.regret.mean():.1f}" for e in judged)]
                )
        comparisons[f"capacity {capacity}"] = ComparisonData(
            runs, unit="a day", block=BLOCK, settings=settings, notes=list(_NOTES)
        )
    tests = [f"test {i + 1}" for i in range(plan.folds)]
    tables = [
        Table(
            "Less regret than two-stage",
            ["problem", "method", "a day [95 %]"],
            [
                [label, method, interval_text(found.difference(method))]
                for label, found in comparisons.items()
                for method in found.challengers
            ],
        ),
        Table("Mean regret a day by test", ["problem", "method", "seed", *tests], rows),
    ]
    return Study("A knapsack of half-hours at Irish electricity prices", "", comparisons, tables)


def _fitted(method: str, layer: dg.DecisionLayer, train: dg.Dataset, plan: Plan, seed: int) -> Any:
    predictor = dg.Linear(shared=True)
    if method == "two-stage":
        return dg.fit(predictor, layer, train, loss="two-stage")
    selection = dg.CrossValidation(ordered=True)
    return dg.fit(
        predictor, layer, train, loss=method, seed=seed, epochs=plan.epochs, selection=selection,
        progress=False,
    )  # fmt: skip


_NOTES = (
    "Days follow each other in time, and every test lies after its training: the published figures of this "
    "problem (Mulamba et al., 2021) are for days in random order, so they cannot be compared with these.",
    "The rule is retrained before every test, so that it is never used longer than one test lasts.",
    "The methods were chosen for their figures on shuffled days of the same data (`decigrad bench "
    "energy-knapsack`), so the tests are not untouched; their settings are the library's defaults.",
)
