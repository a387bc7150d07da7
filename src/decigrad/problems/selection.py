"""Selection: the k cheapest of n items, at costs that depend on features by a polynomial.

    minimize    cᵀx      s.t.  Σx = k,  0 ≤ x ≤ 1

Features φ ~ N(0, I_p), a matrix B of independent Bernoulli(½) entries, and for every item

    c = [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise)

Draws: B, φ, the noise. With k = 1 it is the choice of one action; there are no published figures for it.

Source of the costs: Elmachtoub and Grigas (2022), Smart "Predict, then Optimize", doi:10.1287/mnsc.2020.3922.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.problems._polynomial import linear_model, polynomial_costs


def selection_model(items: int = 20, k: int = 5) -> dg.Model:
    """The selection as a linear program: parameter `cost` and variable `x`, [items] each."""
    dg.oracles.TopK(items, k)  # refuses numbers that make no sense
    m, x = linear_model(f"selection of {k} in {items}", items)
    m.subject_to(dg.sum(x) == float(k), name="number")
    return m


def selection_layer(items: int = 20, k: int = 5) -> dg.DecisionLayer:
    """The model, solved by sorting."""
    return dg.DecisionLayer(selection_model(items, k), solver=dg.oracles.TopK(items, k))


def selection_samples(
    n: int, seed: int = 42, *, features: int = 5, items: int = 20, degree: int = 4, noise: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], costs [n, items], and the expected costs given the features, [n, items].

    Args:
        n: number of samples.
        seed: of the draws.
        features: p.
        items: how many to select from.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.

    >>> x, costs, expected = selection_samples(100, items=3)
    >>> x.shape, costs.shape, expected.shape
    ((100, 5), (100, 3), (100, 3))
    """
    return polynomial_costs(n, seed, items, features, degree, noise)
