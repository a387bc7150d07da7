"""Simple sets against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from oracles.reference import answer, assert_first_minimizer, costs, indicators

from decigrad.errors import ModelError
from decigrad.oracles import Enumeration, Ranking, Simplex, TopK


@pytest.mark.parametrize("kind", ["bits", "integers", "floats"])
def test_enumeration_returns_its_first_minimizer(kind):
    rng = np.random.default_rng(0)
    points = {
        "bits": rng.integers(0, 2, (60, 7)),
        "integers": rng.integers(-300, 300, (60, 7)),
        "floats": rng.standard_normal((60, 7)),
    }[kind].astype(float)
    cost = costs(rng, 1000, 7)
    assert_first_minimizer(answer(Enumeration(points), cost), cost, points)


def test_enumeration_of_more_points_than_a_chunk_holds():
    rng = np.random.default_rng(1)
    points = rng.integers(0, 3, (9001, 6)).astype(float)  # every point about a dozen times
    cost = costs(rng, 200, 6)
    assert_first_minimizer(answer(Enumeration(points), cost), cost, points)
    alone = np.zeros((9001, 6))
    alone[-1] = -1.0  # the last point of the last chunk
    np.testing.assert_array_equal(answer(Enumeration(alone), np.ones((2, 6))), -np.ones((2, 6)))


@pytest.mark.parametrize(("n", "k"), [(7, 3), (6, 1), (5, 5), (1, 1)])
def test_top_k_is_the_first_of_all_choices(n, k):
    cost = costs(np.random.default_rng(n), 1000, n)
    cost[::7, 0] = -0.0  # as good as 0
    exactly = indicators(itertools.combinations(range(n), k), n)
    assert_first_minimizer(answer(TopK(n, k), cost), cost, exactly)
    x = answer(TopK(n, k, exact=False), cost)
    at_most = np.concatenate([indicators(itertools.combinations(range(n), i), n) for i in range(k + 1)])
    assert_first_minimizer(x, cost, at_most)
    assert not x[cost >= 0].any()


def test_simplex_and_ranking_are_the_first_of_all_vertices():
    cost = costs(np.random.default_rng(0), 2000, 5)
    cost[::7, 0] = -0.0
    assert_first_minimizer(answer(Simplex(5), cost), cost, np.eye(5))
    ranks = np.array(list(itertools.permutations(range(1, 6))), float)
    assert_first_minimizer(answer(Ranking(5), cost), cost, ranks)
    np.testing.assert_array_equal(answer(Ranking(3), [[0.3, 2.0, -1.0]]), [[2.0, 1.0, 3.0]])


def test_sets_are_checked():
    for make, message in [
        (lambda: Enumeration([1.0, 2.0]), "nonempty array with 2 axes"),
        (lambda: Enumeration(np.zeros((0, 3))), "nonempty"),
        (lambda: Enumeration([[1.0, np.nan]]), "NaN"),
        (lambda: Enumeration([["a"]]), "needs numbers"),
        (lambda: TopK(3, 4), "k = 4 of n = 3"),
        (lambda: TopK(3, 0), "k must be an integer of at least 1, got 0"),
        (lambda: TopK(2.0, 1), "n must be an integer"),
        (lambda: Simplex(0), "n must be"),
        (lambda: Ranking(-1), "n must be"),
    ]:
        with pytest.raises(ModelError, match=message):
            make()
