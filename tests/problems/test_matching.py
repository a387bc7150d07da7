"""Matchings are the cheapest."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad import problems


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (3, 5), (5, 3)])
def test_matchings_are_the_cheapest(rows, cols):
    _, costs, _ = problems.matching_samples(30, rows=rows, cols=cols)
    layer = problems.matching_layer(rows, cols)
    found = layer.solve({"cost": costs})
    stated = dg.DecisionLayer(layer.model, solver="highs").solve({"cost": costs})
    np.testing.assert_allclose(found.objective, stated.objective)
    assert (found.x["x"].sum(axis=1) == min(rows, cols)).all()
