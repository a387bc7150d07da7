"""Shortest path on a grid, from the north-west to the south-east corner, moving right or down.

    minimize    cᵀx      s.t.  flow conservation at every node, 0 ≤ x ≤ 1

Features φ ~ N(0, I_p), a matrix B of independent Bernoulli(½) entries, and for every edge

    c = [ (Bφ/√p + 3)^degree + 1 ] · U(1 − noise, 1 + noise)

so that a linear predictor is misspecified for degree > 1. The scaled variant divides by 3.5^degree. The draws
are those of PyEPO 2.2 for equal seeds (which rounds the costs to float32): B first, then φ, then the noise.

Source: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922; the scaled
variant: Tang and Khalil (2024), PyEPO, doi:10.1007/s12532-024-00255-x.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems._polynomial import linear_model, polynomial_costs

PUBLISHED = {
    "spo+": {1: 15.77, 2: 10.68, 4: 7.78, 6: 8.33, 8: 10.66},
    "two-stage": {1: 15.65, 2: 10.65, 4: 8.96, 6: 12.93, 8: 21.38},
}
"""Normalized regret in %, by degree: 5 × 5 grid, 1,000 samples, noise ½, mean of 50 repetitions (Elmachtoub
and Grigas 2022, unscaled)."""


def grid_edges(rows: int, cols: int) -> list[tuple[int, int]]:
    """The edges in the order of the costs: for each row its horizontal ones, then those down to the next.

    >>> grid_edges(2, 2)
    [(0, 1), (0, 2), (1, 3), (2, 3)]
    """
    if rows < 1 or cols < 1 or rows * cols < 2:
        raise ModelError(f"a grid needs at least two nodes, got {rows} × {cols}")
    return [(int(tail), int(head)) for tail, head in dg.oracles.GridPath(rows, cols).edges()]


def shortest_path_model(rows: int = 5, cols: int = 5) -> dg.Model:
    """The path as a linear program: parameter `cost` and variable `x`, one entry for each edge."""
    edges = grid_edges(rows, cols)
    flow = np.zeros((rows * cols, len(edges)))
    for e, (tail, head) in enumerate(edges):
        flow[tail, e], flow[head, e] = 1.0, -1.0
    supply = np.zeros(rows * cols)
    supply[0], supply[-1] = 1.0, -1.0
    m, x = linear_model(f"shortest path {rows}x{cols}", len(edges))
    m.subject_to(flow[:-1] @ x == supply[:-1], name="flow")
    return m


def shortest_path_layer(rows: int = 5, cols: int = 5) -> dg.DecisionLayer:
    """The model, solved by dynamic programming."""
    return dg.DecisionLayer(shortest_path_model(rows, cols), solver=dg.oracles.GridPath(rows, cols))


def shortest_path_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 5,
    rows: int = 5,
    cols: int = 5,
    degree: int = 4,
    noise: float = 0.5,
    scaled: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], costs [n, edges], and the expected costs given the features, [n, edges].

    Args:
        n: number of samples.
        seed: of the draws; equal to PyEPO's for equal arguments.
        features: p.
        rows, cols: of the grid.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.
        scaled: divide by 3.5^degree, as PyEPO does.
    """
    return polynomial_costs(n, seed, len(grid_edges(rows, cols)), features, degree, noise, scaled)
