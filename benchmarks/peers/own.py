"""decigrad itself: as `fit` runs it, under `jit`, and many times within one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.programs import Array, Program

CALLS = 200
"""Calls within one compiled loop."""


def layer(program: Program, solver: str) -> Any:
    """The program as a user states it: structure where there is some."""
    import decigrad as dg

    m = dg.Model("row")
    x = m.continuous("x", program.n, lb=program.lb, ub=program.ub)
    c = m.parameter("cost", shape=program.n)
    if program.factor is not None:
        curved = 0.5 * (dg.sum(program.diagonal * x * x) + dg.sum_squares(program.factor @ x))
    elif program.diagonal is not None:
        curved = dg.sum(0.5 * program.diagonal * x * x)
    else:
        curved = 0.5 * dg.quad_form(x, program.P)
    m.minimize(dg.sum(c * x) + curved)
    m.subject_to(program.A @ x == program.b)
    if len(program.h):
        m.subject_to(program.G @ x <= program.h)
    return dg.DecisionLayer(m, solver=solver, throw=False)


def fit(solver: str) -> Callable[[Program], Any]:
    """As `fit` runs it: solve outside of any trace, then the adjoint of the cotangent 2x."""

    def build(program: Program) -> Any:
        made = layer(program, solver)

        def run(cost: Array) -> tuple[Array, Array]:
            solved = made.solve({"cost": cost})
            multiplier = solved.adjoint({"x": 2.0 * solved.x["x"]}, made.form)
            return solved.x["x"], -multiplier[:, : program.n]  # c enters stationarity with coefficient one

        return run

    return build


def _loss(made: Any) -> Callable[[Any], tuple[Any, Any]]:
    def loss(cost: Any) -> tuple[Any, Any]:
        x = made({"cost": cost})["x"]
        return (x**2).sum(), x

    return loss


def jit(solver: str) -> Callable[[Program], Any]:
    """Value and gradient of Σ x² in one compiled function."""

    def build(program: Program) -> Any:
        import jax

        jax.config.update("jax_enable_x64", True)
        function = jax.jit(jax.value_and_grad(_loss(layer(program, solver)), has_aux=True))

        def run(cost: Array) -> tuple[Array, Array]:
            (_, x), gradient = jax.block_until_ready(function(cost))
            return np.asarray(x), np.asarray(gradient)

        return run

    return build


def looped(loss: Callable[[Any], tuple[Any, Any]]) -> Any:
    """CALLS calls for one program, each after the one before it, in one compiled loop."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    one = jax.value_and_grad(loss, has_aux=True)

    @jax.jit
    def function(cost: Any) -> Any:
        def body(_: int, state: Any) -> Any:
            _, _, before = state
            # Adds zero, and so makes this call wait for the one before it.
            (_, x), gradient = one(cost + 0.0 * jnp.clip(before, -1.0, 1.0))
            return x, gradient, gradient

        return jax.lax.fori_loop(0, CALLS, body, (jnp.zeros_like(cost),) * 3)

    def run(cost: Array) -> tuple[Array, Array]:
        x, gradient, _ = jax.block_until_ready(function(cost[0]))
        return np.asarray(x)[None], np.asarray(gradient)[None]

    return run


def loop(solver: str) -> Callable[[Program], Any]:
    """One program many times within one compiled loop."""
    return lambda program: looped(_loss(layer(program, solver)))
