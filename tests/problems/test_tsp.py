"""The draws are PyEPO's; the layer decides on tours."""

from __future__ import annotations

import numpy as np
import pytest

from decigrad.errors import ModelError
from decigrad.problems import tsp_layer, tsp_model, tsp_samples

# pyepo.data.tsp.genData(2, 3, 5, 4, 0.5, 42) of PyEPO 2.2.7, costs in float32
FEATURES = [1.030999522495951, 0.9312801191161986, -0.8392175232226385]
COSTS = [
    [4.4995, 3.8555, 10.9627, 1.954, 6.2632, 3.1973, 6.2519, 5.4041, 1.1693, 3.5237],
    [5.7892, 5.1779, 4.6977, 10.2251, 1.6708, 3.2302, 2.0475, 3.8222, 3.1566, 10.0409],
]
BAD = [{"n": 0}, {"n": 3, "degree": 0}, {"n": 3, "noise": 1.0}, {"n": 3, "cities": 2}]


def test_the_draws_are_those_of_the_source():
    x, costs, expected = tsp_samples(2, 42, features=3, cities=5)
    np.testing.assert_array_equal(x[0], FEATURES)
    np.testing.assert_array_equal(costs.astype(np.float32), np.array(COSTS, np.float32))
    _, same, _ = tsp_samples(2, 42, features=3, cities=5, noise=0.0)
    np.testing.assert_allclose(same, expected, atol=5.1e-5)


def test_the_layer_decides_on_tours():
    _, costs, _ = tsp_samples(30, 1, cities=12)
    tours = tsp_layer(12).solve({"cost": costs})
    x = tours.x["x"]
    assert (x.sum(axis=1) == 12).all()
    relaxed = tsp_model(12).solve({"cost": costs[0]})
    assert relaxed.objective <= tours.objective[0] + 1e-9  # it may have subtours


@pytest.mark.parametrize("bad", BAD)
def test_senseless_draws_are_refused(bad):
    with pytest.raises(ModelError):
        tsp_samples(**bad)
