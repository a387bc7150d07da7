"""Stating and solving models: values against CVXPY and enumeration, multipliers, errors that say why."""

import itertools
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import decigrad as dg
import decigrad.modeling as dm
from decigrad import differentiable_solve, differentiable_solve_l3
from decigrad.errors import (
    InfeasibleError,
    ModelError,
    NonConvexError,
    UnboundedError,
    UnsupportedModelError,
)


def allocation(sense: str = "minimize") -> dg.Model:
    """The tutorial's program: min cᵀx + xᵀx over the simplex with x ≤ 1."""
    m = dg.Model("allocation")
    x, c = m.continuous("x", shape=3, lb=0.0, ub=1.0), m.parameter("cost", shape=3)
    goal = dg.sum(c * x) + dg.sum(x * x)
    (m.minimize if sense == "minimize" else m.maximize)(goal if sense == "minimize" else -goal)
    m.subject_to(dg.sum(x) == 1.0, name="budget")
    return m


# ---------------------------------------------------------------------------------------- facts and duals


@pytest.mark.parametrize("solver", ["auto", "daqp", "interior-point"])
def test_the_tutorials_program(solver: str) -> None:
    m = allocation()
    solution = m.solve({"cost": [0.8, 1.0, 1.2]}, solver=solver)
    np.testing.assert_allclose(solution.x["x"], [1.3 / 3, 1 / 3, 0.7 / 3], atol=1e-9)
    expected = np.full((3, 3), 1 / 6) - np.eye(3) / 2  # −⅓ on the diagonal, +1/6 off it
    np.testing.assert_allclose(solution.sensitivity_matrix("cost"), expected, atol=1e-9)
    np.testing.assert_allclose(solution.gradient("cost"), solution.x["x"], atol=1e-12)
    np.testing.assert_allclose(solution.implicit_gradient("cost"), solution.x["x"], atol=1e-9)
    assert solution.status == dg.Status.OPTIMAL
    assert not solution._l3_failed
    assert set(solution.stats) >= {"solver", "why", "iterations", "seconds"}


def test_the_tutorials_spelling() -> None:
    m = dm.Model("portfolio")
    w, r = m.continuous("w", shape=2, lb=0.0), m.parameter("returns", value=np.array([0.1, 0.2]))
    m.maximize(dm.sum(r * w) - 0.5 * dm.sum(w * w))
    m.subject_to(dm.sum(w) == 1.0)
    found = differentiable_solve_l3(m)
    assert found.sensitivity_matrix().shape == (2, 2)
    np.testing.assert_allclose(found.sensitivity_matrix(), [[0.5, -0.5], [-0.5, 0.5]], atol=1e-9)
    np.testing.assert_allclose(found.gradient(r), found.x["w"], atol=1e-12)
    np.testing.assert_allclose(found.implicit_gradient(r), found.x["w"], atol=1e-9)
    r.value = [1.0, 0.0]
    assert differentiable_solve(m).x["w"][0] == pytest.approx(1.0)


def test_maximum_and_minimum_of_the_negative_agree() -> None:
    low, high = (allocation(s).solve({"cost": [0.3, 1.0, 0.1]}) for s in ("minimize", "maximize"))
    np.testing.assert_array_equal(low.x["x"], high.x["x"])
    assert high.objective == pytest.approx(-low.objective)
    np.testing.assert_allclose(high.gradient("cost"), -low.gradient("cost"))
    np.testing.assert_allclose(high.duals["budget"], low.duals["budget"])  # of the minimization form


def test_multipliers_match_cvxpy() -> None:
    """L = f + y(left − right) for equalities; inequality multipliers ≥ 0, whichever way they are written."""
    rng = np.random.default_rng(0)
    A, G, c = rng.standard_normal((2, 5)), rng.standard_normal((4, 5)), 3 * rng.standard_normal(5)
    m = dg.Model()
    x = m.continuous("x", shape=5, lb=-1.0, ub=0.5)
    m.minimize(c @ x + dg.sum_squares(x))
    m.subject_to(A @ x == [0.1, -0.2], name="equal")
    m.subject_to(G @ x <= 0.3, name="below")
    m.subject_to(2.0 * x[0] + x[1] >= -1.0, name="above")
    m.subject_to(-x[2] >= -0.2, name="bound")
    found = m.solve()
    v = cp.Variable(5)
    rows = [A @ v == [0.1, -0.2], G @ v <= 0.3, 2 * v[0] + v[1] >= -1.0, -v[2] >= -0.2, v >= -1.0, v <= 0.5]
    problem = cp.Problem(cp.Minimize(c @ v + cp.sum_squares(v)), rows)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    assert found.objective == pytest.approx(problem.value, abs=1e-8)
    np.testing.assert_allclose(found.x["x"], v.value, atol=1e-6)
    for name, row in zip(("equal", "below", "above", "bound", "x.lb", "x.ub"), rows, strict=True):
        np.testing.assert_allclose(found.duals[name], row.dual_value, atol=1e-5, err_msg=name)
        assert found.duals[name].shape == row.shape


def test_a_constraint_on_one_variable_becomes_its_bound() -> None:
    m = dg.Model()
    x, p = m.continuous("x", shape=2), m.parameter("p")
    m.minimize(dg.sum_squares(x - 3.0))
    m.subject_to([2.0 * x <= p, x[0] >= -1.0])
    assert m.form.blocks["G"].shape[0] == 0
    found = m.solve({"p": 2.0})
    np.testing.assert_allclose(found.x["x"], [1.0, 1.0])
    np.testing.assert_allclose(found.duals["c0"], [2.0, 2.0])  # 2(x − 3) + 2y = 0
    np.testing.assert_allclose(found.sensitivity_matrix("p"), [[0.5], [0.5]], atol=1e-12)


# ------------------------------------------------------------------------------ piecewise-linear terms


D = np.random.default_rng(5).standard_normal((6, 3))
T = np.random.default_rng(6).standard_normal(6)
PIECEWISE: dict[str, tuple[Any, Any]] = {
    "abs": (lambda r, x: dg.sum(dg.abs(r)), lambda r, x: cp.norm1(r)),
    "norm 1": (lambda r, x: dg.norm(r, 1), lambda r, x: cp.norm1(r)),
    "norm inf": (lambda r, x: dg.norm(r, np.inf), lambda r, x: cp.norm_inf(r)),
    "maximum": (lambda r, x: dg.sum(dg.maximum(r, 0.2)), lambda r, x: cp.sum(cp.maximum(r, 0.2))),
    "minimum": (
        lambda r, x: dg.sum_squares(r) - dg.sum(dg.minimum(x, 0.1)),
        lambda r, x: cp.sum_squares(r) - cp.sum(cp.minimum(x, 0.1)),
    ),
    "max of entries": (
        lambda r, x: dg.max(r) + dg.sum_squares(x),
        lambda r, x: cp.max(r) + cp.sum_squares(x),
    ),
    "square of a positive part": (
        lambda r, x: dg.sum(dg.maximum(r, 0.0) ** 2) + 0.1 * dg.sum_squares(x),
        lambda r, x: cp.sum_squares(cp.pos(r)) + 0.1 * cp.sum_squares(x),
    ),
    "nested": (
        lambda r, x: dg.max(dg.abs(r) + dg.maximum(r, 0.0)),
        lambda r, x: cp.max(cp.abs(r) + cp.maximum(r, 0.0)),
    ),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_linear_terms_against_cvxpy(name: str) -> None:
    ours, theirs = PIECEWISE[name]
    m, v = dg.Model(), cp.Variable(3)
    x = m.continuous("x", shape=3, lb=-2.0, ub=2.0)
    m.minimize(ours(D @ x - T, x))
    m.subject_to(dg.norm(x, 1) <= 2.5)
    problem = cp.Problem(cp.Minimize(theirs(D @ v - T, v)), [cp.norm1(v) <= 2.5, v >= -2.0, v <= 2.0])
    problem.solve(solver=cp.CLARABEL)
    assert m.solve().objective == pytest.approx(problem.value, abs=1e-6)


def test_piecewise_terms_used_the_wrong_way_are_refused_by_name() -> None:
    m = dg.Model()
    x, p = m.continuous("x", shape=2), m.parameter("p")
    m.minimize(-dg.sum(dg.abs(x)))
    with pytest.raises(UnsupportedModelError, match=r"abs\(x\).*the objective"):
        m.solve({"p": 1.0})
    m.minimize(dg.sum_squares(x))
    m.subject_to(dg.sum(dg.abs(x)) >= 1.0, name="outside")
    with pytest.raises(UnsupportedModelError, match="outside"):
        m.solve({"p": 1.0})
    weighted = dg.Model()
    x, p = weighted.continuous("x"), weighted.parameter("p")
    weighted.minimize(p * dg.abs(x - 1.0) + x * x)
    with pytest.raises(UnsupportedModelError, match="nonneg"):
        weighted.solve({"p": 1.0})
    declared = dg.Model()
    x, p = declared.continuous("x"), declared.parameter("p", nonneg=True)
    declared.minimize(p * dg.abs(x - 1.0) + x * x)
    assert declared.solve({"p": 10.0}).x["x"] == pytest.approx(1.0)
    with pytest.raises(ModelError, match="nonneg"):
        declared.solve({"p": -1.0})


# ------------------------------------------------------------------------------------------- bad input


def test_parameter_values_are_validated() -> None:
    m = allocation()
    with pytest.raises(ModelError, match=r"'cost' has shape \(3,\), got \(4,\)"):
        m.solve({"cost": np.ones(4)})
    with pytest.raises(ModelError, match=r"'cost'.*\[1\] is NaN"):
        m.solve({"cost": [1.0, np.nan, 0.0]})
    with pytest.raises(ModelError, match="did you mean 'cost'"):
        m.solve({"costs": np.ones(3)})
    with pytest.raises(ModelError, match="'cost' has no value"):
        m.solve()
    with pytest.raises(ModelError, match="needs numbers"):
        m.solve({"cost": ["a", "b", "c"]})
    with pytest.raises(ModelError, match=r"got \(2,\)"):
        m.parameters["cost"].value = [1.0, 2.0]
    with pytest.raises(UnsupportedModelError, match="unknown solver"):
        m.solve({"cost": np.ones(3)}, solver="simplex")


def test_infeasible_models_name_a_conflict_and_carry_a_certificate() -> None:
    m = dg.Model("plan")
    x = m.continuous("x", shape=2, lb=0.0)
    m.minimize(dg.sum_squares(x))
    m.subject_to(dg.sum(x) <= 1.0, name="capacity")
    m.subject_to(x[0] - x[1] <= 5.0, name="harmless")
    m.subject_to(x[0] + 2.0 * x[1] >= 4.0, name="demand")
    with pytest.raises(InfeasibleError, match="capacity") as caught:
        m.solve()
    assert "demand" in str(caught.value)
    assert "harmless" not in str(caught.value)
    found = m.solve(throw=False)
    assert found.status == dg.Status.PRIMAL_INFEASIBLE
    assert str(found.status) == "PRIMAL_INFEASIBLE"
    assert found._l3_failed
    assert np.isnan(found.x["x"]).all()
    assert found.duals["capacity"] > 0
    assert found.duals["demand"] > 0
    with pytest.raises(ModelError, match="PRIMAL_INFEASIBLE"):
        found.sensitivity_matrix()


def test_unbounded_models_show_a_ray() -> None:
    m = dg.Model()
    x, y = m.continuous("x", lb=0.0), m.continuous("y", lb=0.0, ub=1.0)
    m.maximize(x + y)
    with pytest.raises(UnboundedError, match="x"):
        m.solve()
    found = m.solve(throw=False)
    assert found.status == dg.Status.UNBOUNDED
    assert found.ray is not None
    assert found.ray["x"] > 0
    assert found.ray["y"] == pytest.approx(0.0)


def test_nonconvex_models_show_their_eigenvalue() -> None:
    m = dg.Model()
    x = m.continuous("x", shape=2, lb=-1.0, ub=1.0)
    m.minimize(dg.quad_form(x, np.diag([1.0, -3.0])))
    with pytest.raises(NonConvexError, match="-6") as caught:
        m.solve()
    assert caught.value.eigenvalue == pytest.approx(-6.0)
    p = dg.Model()
    x, q = p.continuous("x", lb=-1.0, ub=1.0), p.parameter("q")
    p.minimize(q * x * x)
    assert p.solve({"q": 1.0}).x["x"] == pytest.approx(0.0)
    with pytest.raises(NonConvexError):
        p.solve({"q": -1.0})


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (lambda x: dg.sum(dg.exp(x)), "exp"),
        (lambda x: x[0] * x[1] * x[0], "degree three"),
        (lambda x: 1.0 / x[0], "division"),
        (lambda x: x[0] ** 3, "power 3"),
        (lambda x: dg.norm(x), "norm"),
    ],
)
def test_terms_outside_the_class_are_named_with_their_constraint(term: Any, text: str) -> None:
    m = dg.Model()
    x = m.continuous("x", shape=2, lb=0.1)
    m.minimize(dg.sum(x))
    m.subject_to(term(x) <= 1.0, name="curved")
    with pytest.raises(UnsupportedModelError, match=text) as caught:
        m.solve()
    assert "curved" in str(caught.value)


def test_statements_that_cannot_be_meant_are_refused() -> None:
    m, other = dg.Model("mine"), dg.Model("other")
    x, foreign = m.continuous("x", shape=2), other.continuous("y", shape=2)
    with pytest.raises(ModelError, match="belongs to another model"):
        m.minimize(dg.sum(foreign))
    with pytest.raises(ModelError, match="belongs to another model"):
        m.subject_to(x <= foreign)
    with pytest.raises(ModelError, match="two constraints"):
        m.subject_to(0.0 <= x[0] <= 1.0)  # type: ignore[operator]
    with pytest.raises(ModelError, match="must be one number"):
        m.minimize(x)
    with pytest.raises(ModelError, match="no objective"):
        m.solve()
    with pytest.raises(ModelError, match="is taken"):
        m.continuous("x")
    with pytest.raises(ModelError, match="lower bound above"):
        m.continuous("z", lb=2.0, ub=1.0)
    with pytest.raises(ModelError, match="does not fit"):
        m.continuous("z", shape=3, lb=np.zeros(2))
    with pytest.raises(ModelError, match="contains a variable"):
        m.continuous("z", lb=x[0])
    with pytest.raises(ModelError, match="positive entries"):
        m.continuous("z", shape=(2, 0))
    with pytest.raises(ModelError, match="True/False"):
        m.subject_to(True)
    with pytest.raises(ModelError, match="needs constraints"):
        m.subject_to(3)
    m.subject_to(x[0] <= 1.0, name="cap")
    with pytest.raises(ModelError, match="exists already"):
        m.subject_to(x[1] <= 1.0, name="cap")
    with pytest.raises(ModelError, match=r"\(2,\) and \(3,\) do not fit"):
        m.subject_to(x <= np.ones(3))


# ------------------------------------------------------------------------------------ integer programs


def test_a_mixed_integer_program_against_enumeration() -> None:
    rng = np.random.default_rng(8)
    weights, profit = rng.integers(1, 9, (2, 7)).astype(float), rng.integers(1, 20, 7).astype(float)
    m = dg.Model("knapsack")
    x, p = m.binary("x", shape=7), m.parameter("profit", shape=7)
    m.maximize(p @ x)
    m.subject_to(weights @ x <= [14.0, 15.0])
    points = np.array(list(itertools.product([0.0, 1.0], repeat=7)))
    feasible = points[(points @ weights.T <= [14.0, 15.0]).all(1)]
    found = m.solve({"profit": profit})
    assert found.stats["solver"] == "highs"
    assert found.objective == pytest.approx((feasible @ profit).max())
    np.testing.assert_array_equal(found.x["x"], np.round(found.x["x"]))
    np.testing.assert_array_equal(found.sensitivity_matrix("profit"), np.zeros((7, 7)))
    np.testing.assert_allclose(found.gradient("profit"), found.x["x"])


def test_integers_beside_continuous_variables() -> None:
    m = dg.Model()
    k, y = m.integer("k", lb=0, ub=9), m.continuous("y", lb=0.0)
    m.minimize(2.0 * k + 3.0 * y)
    m.subject_to(2.0 * k + y >= 7.5)
    found = m.solve()  # k = 3, y = 1.5: 10.5; k = 4: 8
    assert (float(found.x["k"]), float(found.x["y"])) == (4.0, 0.0)


def test_a_quadratic_objective_with_integers_needs_scip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decigrad.solvers.automatic.find_spec", lambda name: None)
    m = dg.Model()
    x = m.integer("x", shape=2, lb=0, ub=3)
    m.minimize(dg.sum_squares(x - 1.4))
    with pytest.raises(UnsupportedModelError, match="MIQP"):
        m.solve()


# --------------------------------------------------------------------------------- structure and display


def test_models_of_equal_structure_share_their_form() -> None:
    first, second = allocation(), allocation()
    assert first.form is second.form
    assert allocation("maximize").form is not None
    changed = allocation()
    changed.subject_to(changed.variables["x"][0] <= 0.5)
    assert changed.form is not first.form
    np.testing.assert_allclose(changed.solve({"cost": [-9.0, 0.0, 0.0]}).x["x"][0], 0.5)


def test_deep_sums_do_not_recurse() -> None:
    m = dg.Model()
    x = m.continuous("x", shape=10, lb=0.0, ub=1.0)
    total: Any = 0.0
    for i in range(5000):
        total = total + float(i % 7 - 3) * x[i % 10]
    m.minimize(total)
    assert len(str(total)) > 5000
    costs = np.bincount(np.arange(5000) % 10, weights=np.arange(5000) % 7 - 3.0)
    assert m.solve().objective == pytest.approx(np.minimum(costs, 0.0).sum())


def test_models_print() -> None:
    m = allocation()
    text, summary = str(m), m.summary()
    assert "minimize" in text
    assert "budget" in text
    assert "sum(x) == 1" in text
    assert "cost" in summary
    assert m._repr_latex_().startswith("$")
    assert repr(m) == "<Model 'allocation': 1 variables, 1 constraints>"


def test_parameters_enter_every_block_nonlinearly() -> None:
    m = dg.Model()
    p = m.parameter("p", shape=2)
    x = m.continuous("x", shape=2, lb=-dg.exp(p), ub=p * p + 1.0)
    m.minimize(dg.exp(p[0]) * dg.sum_squares(x) + (p[1] / p[0]) * x[0] - dg.sin(p[1]) * x[1] + p[0] ** 3)
    m.subject_to(dg.sqrt(p[0]) * x[0] + p[1] * x[1] <= dg.log(p[0]) - 0.2)
    m.subject_to(p[0] * x[0] - x[1] == p[1])
    at, step = np.array([1.3, 0.7]), 1e-5
    found = m.solve({"p": at})
    moved = [m.solve({"p": at + step * e}) for e in np.vstack([np.eye(2), -np.eye(2)])]
    numeric = np.stack([(moved[i].x["x"] - moved[i + 2].x["x"]) / (2 * step) for i in range(2)], axis=1)
    np.testing.assert_allclose(found.sensitivity_matrix(), numeric, atol=1e-7)
    value = [(moved[i].objective - moved[i + 2].objective) / (2 * step) for i in range(2)]
    np.testing.assert_allclose(found.gradient(p), value, atol=1e-7)
    np.testing.assert_allclose(found.implicit_gradient(p), value, atol=1e-7)
