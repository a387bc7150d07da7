"""Synthetic problems draw one polynomial; senseless settings are refused."""

from __future__ import annotations

import numpy as np
import pytest

from decigrad import problems
from decigrad.errors import ModelError

POLYNOMIAL = {
    "selection": (problems.selection_samples, {"items": 40}),
    "matching": (problems.matching_samples, {"rows": 5, "cols": 8}),
    "ranking": (problems.ranking_samples, {"items": 40}),
    "newsvendor": (problems.newsvendor_samples, {"products": 40, "degree": 4, "scale": 1.0}),
}


@pytest.mark.parametrize("name", POLYNOMIAL)
def test_polynomial_draws_are_those_of_the_shortest_paths(name):
    samples, sizes = POLYNOMIAL[name]
    for found, expected in zip(samples(7, 3, **sizes), problems.shortest_path_samples(7, 3), strict=True):
        np.testing.assert_array_equal(found, expected)
    for bad in ({"n": 0}, {"n": 3, "noise": 1.0}, {"n": 3, "degree": 0}, {"n": 3, "features": 0}):
        with pytest.raises(ModelError):
            samples(**bad)
