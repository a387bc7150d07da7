"""The traveling salesman with predicted costs: the cheapest tour through all cities.

    minimize    cᵀx      s.t.  x the indicator of a tour, on the edges of the complete graph

Cities are drawn half from U(−2, 2)² and half from N(0, I). With features φ ~ N(0, I_p), a matrix B of entries
Bernoulli(½) times U(−2, 2), and the distance ℓ between its two cities, an edge costs

    c = ℓ + (Bφ/√p + 3)^degree / 3^(degree − 1) · U(1 − noise, 1 + noise)      rounded to four decimals

The draws are those of PyEPO 2.2 for equal seeds (which rounds the costs to float32): cities, B, φ, noise.

Source: Tang and Khalil (2024), PyEPO, doi:10.1007/s12532-024-00255-x.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.problems._polynomial import check_draws, multiplicative, polynomial

MEASURED = {"two-stage": 13.1, "spo+": 6.1, "cave+": 6.2, "pfyl": 6.7}
"""Normalized regret in % of PyEPO itself: 20 cities, degree 4, a linear predictor. `two-stage` is ordinary
least squares, `cave+` the cone-aligned loss of Tang and Khalil (2024), arXiv:2312.07718."""


def tsp_model(cities: int = 20) -> dg.Model:
    """Parameter `cost` and binary variable `x`, one entry for each edge; two edges at every city.

    **Subtours are not excluded**: that would take exponentially many constraints. The layer's oracle adds
    those that it needs, so decide with `tsp_layer`, not with this model alone.
    """
    edges = dg.oracles.TSP(cities).edges()
    incidence = (edges[:, :, None] == np.arange(cities)).any(axis=1).T.astype(float)
    m = dg.Model(f"tour of {cities} cities")
    x = m.binary("x", shape=len(edges))
    cost = m.parameter("cost", shape=len(edges))
    m.minimize(cost @ x)
    m.subject_to(incidence @ x == 2.0, name="degree")
    return m


def tsp_layer(cities: int = 20) -> dg.DecisionLayer:
    """The model, solved by subtour cuts and branching (`oracles.TSP`)."""
    return dg.DecisionLayer(tsp_model(cities), solver=dg.oracles.TSP(cities))


def tsp_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 10,
    cities: int = 20,
    degree: int = 4,
    noise: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], costs [n, edges], and the expected costs given the features, [n, edges].

    The expected costs leave out the rounding. Edges are in the order (0, 1), (0, 2), …, (1, 2), …

    Args:
        n: number of samples.
        seed: of the draws; equal to PyEPO's for equal arguments.
        features: p.
        cities: how many, at least 3.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.

    >>> x, costs, expected = tsp_samples(2, cities=4)
    >>> x.shape, costs.shape, expected.shape
    ((2, 10), (2, 6), (2, 6))
    """
    from scipy.spatial.distance import pdist

    check_draws(n, features, degree, noise)
    edges = dg.oracles.TSP(cities).size()
    rng = np.random.RandomState(seed)
    square, normal = rng.uniform(-2, 2, (cities // 2, 2)), rng.normal(0, 1, (cities - cities // 2, 2))
    length = pdist(np.concatenate([square, normal]), "euclidean")
    weights = rng.binomial(1, 0.5, (edges, features)) * rng.uniform(-2, 2, (edges, features))
    x = rng.normal(0, 1, (n, features))
    varying = polynomial(x, weights, degree) / 3 ** (degree - 1)
    costs = length + varying * multiplicative(rng, noise, varying.shape)
    return x, np.around(costs, decimals=4), length + varying
