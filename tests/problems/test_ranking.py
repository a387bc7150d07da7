"""Rankings are the best permutations."""

from __future__ import annotations

import itertools

import numpy as np

from decigrad import problems


def test_rankings_are_the_best_permutations():
    _, relevances, _ = problems.ranking_samples(20, items=5)
    found = problems.ranking_layer(5).solve({"relevance": relevances})
    orders = np.array(list(itertools.permutations(range(1, 6))), float)
    np.testing.assert_allclose(found.objective, (relevances @ orders.T).min(axis=1))
    assert (found.x["x"][np.arange(20), relevances.argmax(axis=1)] == 1).all()
