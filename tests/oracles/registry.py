"""One small instance of every oracle of the package; a new oracle is tested by an entry here."""

from __future__ import annotations

import numpy as np

from decigrad import oracles
from decigrad.oracles import LinearOracle

_DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3), (1, 2), (0, 3)]

ORACLES: dict[str, LinearOracle] = {
    "grid path": oracles.GridPath(3, 4),
    "node grid path": oracles.NodeGridPath(4, 3),
    "node grid path cover": oracles.NodeGridPath(3, 4, cover=True),
    "dag path": oracles.DagPath(4, _DIAMOND, 0, 3),
    "graph path": oracles.GraphPath(4, [*_DIAMOND, (3, 1)], 0, 3),
    "knapsack": oracles.Knapsack([3, 1, 4, 1, 5, 2], 7),
    "multi-knapsack": oracles.MultiKnapsack([[3, 1, 4, 1, 5, 2], [1, 2, 3, 1, 2, 3]], [7, 5]),
    "enumeration": oracles.Enumeration(np.random.default_rng(0).integers(0, 3, (20, 5))),
    "top-k": oracles.TopK(6, 2),
    "top-k at most": oracles.TopK(6, 4, exact=False),
    "simplex": oracles.Simplex(4),
    "ranking": oracles.Ranking(5),
    "assignment": oracles.Assignment(3),
    "spanning tree": oracles.SpanningTree(4, _DIAMOND),
    "tsp": oracles.TSP(5),
    "cvrp": oracles.CVRP(4, [3, 2, 2, 1], 5, 2),
    "portfolio": oracles.Portfolio(0.5 * np.eye(4) + 0.5, 0.6),
    "interval scheduling": oracles.IntervalScheduling([0, 1, 2, 4, 3], [2, 3, 5, 6, 4]),
}

NO_NEGATIVE_COSTS = {"node grid path", "graph path"}


def integer_costs(name: str, batch: int) -> np.ndarray:
    """Costs that are exact in single precision, with ties."""
    rng = np.random.default_rng(7)
    return rng.integers(0 if name in NO_NEGATIVE_COSTS else -3, 5, (batch, ORACLES[name].size())).astype(
        float
    )
