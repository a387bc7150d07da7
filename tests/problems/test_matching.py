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


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (3, 5), (5, 3)])
def test_some_point_satisfies_every_inequality_strictly(rows, cols):
    """A logarithmic barrier needs one: all pairs alike."""
    program = problems.matching_layer(rows, cols).programs({"cost": np.ones((1, rows * cols))})[0]
    alike = np.full((1, rows * cols), 1 / max(rows, cols))
    np.testing.assert_allclose(program.A.matvec(alike) - program.b, 0, atol=1e-12)
    assert (program.h - program.G.matvec(alike) > 0.1).all()
    assert ((program.lb < alike) & (alike < program.ub)).all()
