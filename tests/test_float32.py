"""JAX's default precision: a layer works eagerly and in a trace, before and after float64 solves."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad.problems.allocation import allocation_model


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_in_float32_after_a_float64_solve(compiled):
    layer = dg.DecisionLayer(allocation_model(), solver="daqp")
    costs = np.array([[0.8, 1.0, 1.2], [0.0, 1.0, 3.0]])

    def squares(costs):
        return (layer({"cost": costs})["x"] ** 2).sum()

    with jax.enable_x64(False):
        layer({"cost": costs})
        gradient = (jax.jit(jax.grad(squares)) if compiled else jax.grad(squares))(costs.astype(np.float32))
    # Interior: dx/dc = −½(I − 11ᵀ/3); with x = (.75, .25, 0) only the first two move.
    first = -(np.eye(3) - 1.0 / 3.0) / 2.0 @ (2.0 * np.array([13, 10, 7]) / 30.0)
    second = np.array([-0.25, 0.25, 0.0])
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, [first, second], atol=1e-6)
