"""The knapsack's draws are PyEPO's, its oracle solves the stated program, its expected values are right."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems import knapsack_layer, knapsack_model, knapsack_samples, knapsack_weights

# pyepo.data.knapsack.genData(3, 5, 4, 2, 4, 0.5, 42) of PyEPO 2.2.7
WEIGHTS = [[4.02, 7.35, 6.48, 5.7], [4.06, 3.71, 4.88, 3.2]]
FEATURES = [1.465648768921554, -0.22577630048653566, 0.06752820468792384, -1.4247481862134568]
VALUES = [[1, 3, 2, 2], [3, 4, 3, 2], [3, 2, 1, 6]]

BAD = [{"n": 0}, {"n": 3, "degree": 0}, {"n": 3, "noise": 1.0}, {"n": 3, "items": 0}]


def test_the_draws_are_those_of_the_source():
    x, values, _ = knapsack_samples(3, 42, items=4)
    np.testing.assert_array_equal(knapsack_weights(42, items=4), WEIGHTS)
    np.testing.assert_array_equal(x[0, :4], FEATURES)
    np.testing.assert_array_equal(values, VALUES)


def test_the_oracle_solves_the_stated_program():
    _, values, _ = knapsack_samples(20, 3, items=12)
    weights = knapsack_weights(3, items=12)
    found = knapsack_layer(weights).solve({"value": values})
    expected = dg.DecisionLayer(knapsack_model(weights), solver="highs").solve({"value": values})
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)
    assert (found.x["x"] @ weights.T <= 20.0 + 1e-9).all()


def test_capacities_may_differ_by_constraint():
    layer = knapsack_layer([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]], [2.0, 4.0])
    np.testing.assert_array_equal(layer.solve({"value": np.array([1.0, 3.0, 3.5])}).x["x"], [1, 0, 1])


def test_expected_values_are_means_of_the_rounded_values():
    _, values, expected = knapsack_samples(50, 1, items=3, noise=0.0)
    np.testing.assert_array_equal(values, expected)
    x, drawn, mean = knapsack_samples(100_000, 5, features=1, items=1, degree=1, noise=0.3)
    for part in (x[:, 0] > 0, x[:, 0] < -2):
        deviation = (drawn - mean)[part]
        assert abs(deviation.mean()) < 4 * deviation.std() / np.sqrt(part.sum())


@pytest.mark.parametrize("bad", BAD)
def test_senseless_draws_are_refused(bad):
    with pytest.raises(ModelError):
        knapsack_samples(**bad)


def test_senseless_instances_are_refused():
    with pytest.raises(ModelError, match="constraints, items"):
        knapsack_model([1.0, 2.0])
    with pytest.raises(ModelError, match="capacity"):
        knapsack_model([[1.0, 2.0]], [1.0, 2.0])
