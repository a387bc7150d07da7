"""Ranking: n items in the order of their relevance, which is predicted.

    minimize    rᵀx      over the permutations x of (1, …, n)

xᵢ is the rank of item i, 1 for the most relevant. Regret is what the wrong order costs: a swap of two
neighbors costs the difference of their relevances. Features φ ~ N(0, I_p), a matrix B of independent
Bernoulli(½) entries, and for every item

    r = [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise)

Draws: B, φ, the noise. There are no published figures for it.

Source of the set: Blondel, Teboul, Berthet and Djolonga (2020), "Fast Differentiable Sorting and Ranking",
ICML, arXiv:2002.08871; of the relevances: Elmachtoub and Grigas (2022), doi:10.1287/mnsc.2020.3922.
"""

from __future__ import annotations

import numpy as np

import decigrad as dg
from decigrad.problems._polynomial import linear_model, polynomial_costs


def ranking_model(items: int = 10) -> dg.Model:
    """Parameter `relevance` and variable `x`, [items] each: ranks between 1 and n with the sum of 1, …, n.

    **Equal ranks are not excluded**: that would take a constraint for every set of items. The layer's oracle
    ranks without them, so decide with `ranking_layer`, not with this model alone.
    """
    dg.oracles.Ranking(items)  # refuses numbers that make no sense
    m, x = linear_model(f"ranking of {items}", items, "relevance", lb=1.0, ub=float(items))
    m.subject_to(dg.sum(x) == items * (items + 1) / 2, name="ranks")
    return m


def ranking_layer(items: int = 10) -> dg.DecisionLayer:
    """The model, solved by sorting."""
    return dg.DecisionLayer(ranking_model(items), solver=dg.oracles.Ranking(items))


def ranking_samples(
    n: int, seed: int = 42, *, features: int = 5, items: int = 10, degree: int = 4, noise: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], relevances [n, items], and the expected ones given the features, [n, items].

    Args:
        n: number of samples.
        seed: of the draws.
        features: p.
        items: how many to rank.
        degree: of the polynomial, at least 1.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.

    >>> x, relevances, expected = ranking_samples(100, items=3)
    >>> x.shape, relevances.shape, expected.shape
    ((100, 5), (100, 3), (100, 3))
    """
    return polynomial_costs(n, seed, items, features, degree, noise)
