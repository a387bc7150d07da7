"""Exact derivatives at known active sets: programs built from their answers, compared in both modes.

`python -m benchmarks.derivatives` runs the same comparison on thousands of programs.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad import native

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ stands beside tests/

from benchmarks import derivatives as d

CASES = [
    (d.Structure(6, "dense"), "daqp", 90),
    (d.Structure(10, "low-rank", shared=True), "daqp", 80),
    (d.Structure(5, "linear"), "highs", 60),
    (d.Structure(4, "diagonal"), "interior-point", 72),
]


@pytest.mark.parametrize(("structure", "solver", "count"), CASES, ids=lambda v: getattr(v, "curvature", v))
def test_against_the_active_set_formula(structure: d.Structure, solver: str, count: int) -> None:
    host = solver != "interior-point"  # compiled into every caller: compared by single solves
    singles = len(structure.classes) if host else count
    errors = d.compare(structure, count, 1, solver, jacobian_up_to=5, singles=singles, traced=host)
    assert set(errors) == set(structure.classes)
    assert sum(e.samples for e in errors.values()) == count
    assert sum(e.differences for e in errors.values()) == 20
    for kind, e in errors.items():
        assert e.worst < 1e-6, (kind, e)
        assert e.formula < 1e-6, (kind, e)


def test_a_vertex_does_not_move_with_the_cost() -> None:
    rng = np.random.default_rng(3)
    for structure in (d.Structure(5, "dense"), d.Structure(5, "linear")):
        stated, sample = d.model(structure, {}), d.draw(structure, "vertex", rng)
        solution = stated.solve({k: sample.values[k] for k in stated.parameters})
        moved = solution.sensitivity_matrix("c")
        assert moved.shape == (5, 5)
        assert np.abs(moved).max() < 1e-9
        # ... but does with the sides of its constraints
        assert np.abs(solution.sensitivity_matrix("h")).max() > 0.01 or not sample.active.any()


@pytest.mark.parametrize("distance", [10.0**-k for k in range(3, 10)])
@pytest.mark.parametrize("beyond", [True, False])
def test_a_bound_near_the_minimum(distance: float, beyond: bool) -> None:
    """min ½x² − px on x ≤ 1: dx/dp is 0 when the free minimum p lies beyond the bound, else 1."""
    m = dg.Model()
    x, p = m.continuous("x", ub=1.0), m.parameter("p")
    m.minimize(0.5 * x * x - p * x)
    for solver in ("daqp", "interior-point"):
        at = 1.0 + distance if beyond else 1.0 - distance
        solution = m.solve({"p": at}, solver=solver)
        assert solution.x["x"] == pytest.approx(min(at, 1.0), abs=1e-12)
        assert solution.sensitivity_matrix("p")[0, 0] == pytest.approx(float(not beyond), abs=1e-9)


def test_kinks_return_a_documented_element_and_are_flagged() -> None:
    """An active constraint with a zero multiplier counts as inactive; the statistics say so."""
    m = dg.Model()
    x, p = m.continuous("x", ub=1.0), m.parameter("p")
    m.minimize(0.5 * x * x - p * x)
    solution = m.solve({"p": 1.0})
    assert solution.sensitivity_matrix("p")[0, 0] == pytest.approx(1.0)
    assert solution.stats["kinks"] == 1
    assert m.solve({"p": 0.5}).stats.get("kinks", 0) == 0


def test_duplicated_constraints_share_by_minimum_norm() -> None:
    """Two copies of x + y ≤ h: the derivative is ½ of that in one side, and all of it in both together."""
    m = dg.Model()
    x, y, h = m.continuous("x"), m.continuous("y"), m.parameter("h", shape=2)
    m.minimize((x - 3.0) ** 2 + (y - 2.0) ** 2)
    m.subject_to(x + y <= h)
    solution = m.solve({"h": [1.0, 1.0]})
    np.testing.assert_allclose(solution.sensitivity_matrix("h"), np.full((2, 2), 0.25), atol=1e-9)
    assert solution.stats["singular"]


def test_at_a_vertex_that_a_bound_meets_the_derivative_is_one_sided() -> None:
    """x = (1, 0) of x₁ + x₂ = h, x₁ ≤ u, at h = u = 1: that of x = (h, 0) or that of x = (u, h − u)."""
    sides = [[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, -1.0]]  # of x₁, x₂ in h, u
    m = dg.Model()
    h, u = m.parameter("h"), m.parameter("u")
    x = m.continuous("x", shape=2, lb=0.0, ub=u)
    m.minimize(dg.sum(x**2) + 9.0 * x[1])
    m.subject_to(dg.sum(x) == h)
    for solver in ("active-set", "daqp"):
        if solver == "daqp" or not native.missing():
            solution = m.solve({"h": 1.0, "u": 1.0}, solver=solver)
            assert min(abs(solution.sensitivity_matrix() - side).max() for side in sides) < 1e-9


def test_ties_of_a_linear_program_are_bounded() -> None:
    m = dg.Model()
    x, c = m.continuous("x", shape=3, lb=0.0, ub=1.0), m.parameter("c", shape=3)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    layer = dg.DecisionLayer(m)
    tie = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0], [1.0, 2.0, 3.0]])
    with jax.enable_x64(True):
        gradient = jax.grad(lambda c: (layer({"c": c})["x"] * np.arange(3.0)).sum())(tie)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_the_residual_vanishes_at_random_solutions() -> None:
    """The returned multipliers satisfy stationarity with the signs of the standard form."""
    rng = np.random.default_rng(0)
    structure = d.Structure(6, "dense")
    stated = d.model(structure, {})
    for _ in range(5):
        sample = d.draw(structure, "mixed", rng)
        raw = stated.solve({k: sample.values[k] for k in stated.parameters})._raw
        np.testing.assert_allclose(raw.z[0], sample.z, atol=1e-9)
        np.testing.assert_allclose(raw.w[0], sample.w, atol=1e-9)
        np.testing.assert_allclose(raw.y[0], sample.y, atol=1e-9)


def test_integers_do_not_move_with_their_bounds_and_rows() -> None:
    """x = (1, 2) whatever u is near (3.5, 2.5), and y = x₁ + u₀; a sum of integers cannot follow k at all."""
    m = dg.Model()
    x, y, u, k = m.integer("x", shape=2, lb=0), m.continuous("y"), m.parameter("u", shape=2), m.parameter("k")
    m.minimize(x[0] - x[1] + y)
    m.subject_to(x <= u)
    m.subject_to(y >= x[1] + u[0])
    m.subject_to(x[0] + x[1] == k)
    at = {"u": np.array([3.5, 2.5]), "k": np.array(3.0)}
    solution = m.solve(at)
    np.testing.assert_allclose(np.append(solution.x["x"], solution.x["y"]), [1.0, 2.0, 5.5])
    move = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # of x₀, x₁, y in u₀, u₁, k
    np.testing.assert_allclose(solution.sensitivity_matrix(), move, atol=1e-12)
    for slope in (solution.gradient, solution.implicit_gradient):
        np.testing.assert_allclose(slope("u"), [1.0, 0.0], atol=1e-12)
        np.testing.assert_allclose(slope("k"), 0.0, atol=1e-12)
    layer = dg.DecisionLayer(m)
    with jax.enable_x64(True):
        for jacobian in (jax.jacfwd, jax.jacrev):
            found = jacobian(lambda p: layer(p))(at)
            for name, rows in (("x", move[:2]), ("y", move[2])):
                np.testing.assert_allclose(found[name]["u"], rows[..., :2], atol=1e-12)
                np.testing.assert_allclose(found[name]["k"], rows[..., 2], atol=1e-12)
        slope = jax.grad(layer.value)(at)
        np.testing.assert_allclose(slope["u"], [1.0, 0.0], atol=1e-12)
        np.testing.assert_allclose(slope["k"], 0.0, atol=1e-12)
        saved = layer.saved(layer.solve(at), {"x": np.ones(2), "y": np.ones(())})
        pulled = jax.grad(lambda p: -layer.pairing(p, saved))(at)
        np.testing.assert_allclose(pulled["u"], [1.0, 0.0], atol=1e-12)
