"""From expressions to the program: structure is found, values are right, NumPy and JAX agree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decigrad as dg
from decigrad.expressions.expression import evaluate

N = 30
rng = np.random.default_rng(0)
F, Q = rng.standard_normal((4, N)), rng.standard_normal((N, N))
CURVATURES: dict[str, tuple[Callable[..., Any], str]] = {
    "none": (lambda x, p: p @ x, "zero"),
    "squares": (lambda x, p: dg.sum(dg.exp(p) * x * x) + p @ x, "diagonal"),
    "shifted squares": (lambda x, p: dg.sum_squares(2.0 * x - p), "diagonal"),
    "factor": (lambda x, p: dg.sum_squares(F @ x) + 0.1 * dg.sum_squares(x), "low-rank"),
    "parametric factor": (lambda x, p: dg.sum_squares((F * p) @ x - 1.0) + dg.sum(p * p * x * x), "low-rank"),
    "matrix": (lambda x, p: dg.quad_form(x, Q.T @ Q), "dense"),
    "neighbours": (lambda x, p: dg.sum_squares(dg.diff(x)) + p @ x, "dense"),
    "many rows": (lambda x, p: dg.sum_squares(Q @ x - p), "dense"),
    "bilinear": (lambda x, p: (p @ x) * dg.sum(x) + 99.0 * dg.sum_squares(x), "dense"),
}


@pytest.mark.parametrize("name", CURVATURES)
def test_the_program_reproduces_the_objective(name: str) -> None:
    goal, curvature = CURVATURES[name]
    m = dg.Model()
    x, p = m.continuous("x", shape=N), m.parameter("p", shape=N)
    objective = goal(x, p)
    m.minimize(objective)
    assert m.form.curvature == curvature
    assert m.form.linear == (curvature == "zero")
    for _ in range(3):
        at = {"p": rng.uniform(0.1, 1.0, N)}
        program = m.form.assemble(at)
        point = rng.standard_normal(N)
        stated = float(evaluate([objective], {"x": point, **at}, np)[0])
        assert float(program.objective(point)) == pytest.approx(stated, rel=1e-10, abs=1e-10)
        dense = program.P.dense()
        np.testing.assert_allclose(dense, dense.T, atol=1e-12)


def test_numpy_and_jax_assemble_the_same_program() -> None:
    m = dg.Model()
    p = m.parameter("p", shape=3)
    x = m.continuous("x", shape=3, lb=-p, ub=dg.exp(p))
    m.minimize(dg.sum_squares(x - p) + dg.sum(dg.abs(x)))
    m.subject_to(p * x[0] + x[1:].sum() <= dg.sqrt(p))
    m.subject_to(dg.sum(p * x) == p[0])
    at = {"p": np.array([0.5, 1.0, 2.0])}
    host = jax.tree_util.tree_leaves(m.form.assemble(at))
    with jax.enable_x64(True):
        traced = jax.tree_util.tree_leaves(jax.jit(lambda v: m.form.assemble(v, jnp))(at))
    for a, b in zip(host, traced, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_only_what_depends_on_a_parameter_is_said_to() -> None:
    m = dg.Model()
    c, h, s = m.parameter("c", shape=2), m.parameter("h"), m.parameter("s")
    x = m.continuous("x", shape=2, lb=0.0, ub=s)
    m.minimize(c @ x + dg.sum_squares(x))
    m.subject_to(x[0] + x[1] <= h)
    form = m.form
    assert {part: set(form.depends(part)) for part in ("P", "q", "r", "A", "b", "G", "h", "lb", "ub")} == {
        "P": set(),
        "q": {"c"},
        "r": set(),
        "A": set(),
        "b": set(),
        "G": set(),
        "h": {"h"},
        "lb": set(),
        "ub": {"s"},
    }


def test_both_sides_of_an_absolute_value_share_a_multiplier() -> None:
    m = dg.Model()
    x = m.continuous("x", shape=2)
    m.minimize(dg.sum_squares(x - [3.0, -3.0]))
    m.subject_to(dg.abs(x) <= 1.0, name="box")
    found = m.solve()
    np.testing.assert_allclose(found.x["x"], [1.0, -1.0])
    np.testing.assert_allclose(found.duals["box"], [4.0, 4.0])
    assert m.form.n == 2  # no auxiliary columns


def test_zeros_of_a_constant_matrix_are_no_entries() -> None:
    """A band of 2·10⁵ zeros costs nothing: the pattern holds what is there."""
    n = 400
    m = dg.Model()
    x, p = m.continuous("x", shape=n, lb=0.0), m.parameter("p", shape=n)
    m.minimize(p @ x)
    m.subject_to(dg.diff(x) <= 1.0)
    G = m.form.assemble({"p": np.ones(n)}).G.matrix
    assert np.count_nonzero(G) == 2 * (n - 1)
