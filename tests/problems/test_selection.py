"""Selections are the cheapest."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad import problems
from decigrad.errors import ModelError


def test_selections_are_the_cheapest():
    _, costs, _ = problems.selection_samples(50, items=8)
    layer = problems.selection_layer(8, 3)
    found = layer.solve({"cost": costs})
    np.testing.assert_allclose(found.objective, np.sort(costs, axis=1)[:, :3].sum(axis=1))
    stated = dg.DecisionLayer(layer.model, solver="highs").solve({"cost": costs})
    np.testing.assert_allclose(found.objective, stated.objective)
    with pytest.raises(ModelError, match="cannot be chosen"):
        problems.selection_model(3, 4)
