"""What a benchmark is: a problem with cells (a degree, a number of samples, a capacity).

In each cell every method is trained and judged with the same seeds. `benchmarks` lists them all, and
`decigrad bench` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.registry import METHODS

SHORT: dict[str, Any] = {"epochs": 10, "selection": dg.HoldOut()}
"""Options of `fit` for methods whose steps are `costly`."""


def costly(method: str) -> bool:
    """Whether a method solves for each sample and step a relaxation, or four problems or more."""
    if method not in METHODS:
        return False
    solves = METHODS[method].solves
    return not solves.isdigit() or int(solves) >= 4


@dataclass(frozen=True)
class Draw:
    """Training and test data, and the expected parameters of the test samples where they are known."""

    train: dg.Dataset
    test: dg.Dataset
    expected: dict[str, np.ndarray] | None = None


@dataclass(frozen=True)
class Cell:
    """One setting of a benchmark.

    Attributes:
        label: names it in the table.
        layer: makes the decision layer.
        draw: data by seed.
        published: figures of others, by method, in the unit of the table.
        options: of `fit`, those that served best.
        fixed: all seeds have the same data, so they show the randomness of training alone.
        thorough: with the methods that solve relaxations, which take most of the time.
    """

    label: str
    layer: Callable[[], dg.DecisionLayer]
    draw: Callable[[int], Draw]
    published: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False
    thorough: bool = True

    def options_for(self, method: str) -> dict[str, Any]:
        """Of `fit`: those of the cell; for costly methods `SHORT`, and no more epochs than that."""
        if not costly(method):
            return dict(self.options)
        epochs = min(self.options.get("epochs", SHORT["epochs"]), SHORT["epochs"])
        return {**self.options, **SHORT, "epochs": epochs}

    def omits(self, method: str) -> bool:
        """Whether a method is left out by default."""
        return not self.thorough and method in METHODS and not METHODS[method].solves.isdigit()


@dataclass(frozen=True)
class Benchmark:
    """A problem with its cells.

    Attributes:
        name: on the command line.
        title: of its table.
        about: what is measured, and whose figures stand beside ours.
        cells: makes the cells; of a directory with the user's files where `needs_data`.
        predictor: what is trained.
        methods: by default; None: all but the exact derivative, which is zero for a linear program.
        summary: labels of the cells in the summary of all benchmarks; None: all.
        normalized: regret in % of the optimal values; else in the unit of the objective, a mean by sample.
    """

    name: str
    title: str
    about: str
    cells: Callable[[Path | None], list[Cell]]
    predictor: Any = field(default_factory=dg.Linear)
    methods: tuple[str, ...] | None = None
    summary: tuple[str, ...] | None = None
    normalized: bool = True
    needs_data: bool = False
