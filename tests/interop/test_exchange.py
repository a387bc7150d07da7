"""Files and models of elsewhere: what comes in is what HiGHS solves, what goes out is what was stated."""

from __future__ import annotations

import gzip

import highspy
import numpy as np
import pytest

import decigrad as dg

PLAN = r"""\ a plan
Maximize
 obj: 3 x + 2 y - 4 use + 1.5 z + 7 slot + 0.25 w
Subject To
 cap: x + 1.5 y + z <= 10
 limit: x - y <= 6
 floor: x - y >= 1
 need: z >= 1
 link: z - 8 slot <= 0
 whole: x + z + w = 7
Bounds
 -5 <= w <= 5
 x <= 9
 slot <= 3
Binary
 use
General
 slot
End
"""
PARAMETERS = {
    "price": ("cost", ["z", "x"]),
    "side": ("rhs", ["need", "whole", "cap"]),
    "rate": ("coefficients", [("cap", "y"), ("link", "slot")]),
    "top": ("upper", "x"),
}


def by_highs(path, change=lambda highs: None):
    """Objective and named solution, by HiGHS alone."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.readModel(str(path))
    change(highs)
    highs.run()
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    values = highs.getSolution().col_value
    return highs.getInfo().objective_function_value, dict(zip(highs.getLp().col_names_, values, strict=True))


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.lp"
    path.write_text(PLAN)
    return path


def test_a_file_solves_as_it_is(plan):
    found = dg.from_lp(plan, PARAMETERS)
    solution = found.model.solve()
    objective, values = by_highs(plan)
    assert solution.objective == pytest.approx(objective, abs=1e-8)
    mine = found.named(solution.x)
    assert {name: pytest.approx(float(v), abs=1e-7) for name, v in mine.items()} == values
    assert found.columns["use"] == ("binary", 0)
    assert found.columns["slot"] == ("integer", 0)
    assert [found.rows[row][0][0] for row in ("limit", "floor", "whole")] == ["at_most", "at_least", "equal"]


@pytest.mark.parametrize("seed", range(5))
def test_parameters_are_the_numbers_that_they_name(plan, seed):
    rng = np.random.default_rng(seed)
    found = dg.from_lp(plan, PARAMETERS)
    own = {name: p.value for name, p in found.model.parameters.items()}
    assert {name: v.tolist() for name, v in own.items()} == {
        "price": [1.5, 3.0], "side": [1.0, 7.0, 10.0], "rate": [1.5, -8.0], "top": [9.0],
    }  # fmt: skip
    new = {name: v * rng.uniform(0.8, 1.2, v.shape) for name, v in own.items()}

    def change(highs):
        names = highs.getLp().col_names_
        rows = highs.getLp().row_names_
        x, y, z, slot = (names.index(name) for name in ("x", "y", "z", "slot"))
        need, whole, cap, link = (rows.index(name) for name in ("need", "whole", "cap", "link"))
        highs.changeColCost(z, new["price"][0])
        highs.changeColCost(x, new["price"][1])
        highs.changeRowBounds(need, new["side"][0], highspy.kHighsInf)
        highs.changeRowBounds(whole, new["side"][1], new["side"][1])
        highs.changeRowBounds(cap, -highspy.kHighsInf, new["side"][2])
        highs.changeCoeff(cap, y, new["rate"][0])
        highs.changeCoeff(link, slot, new["rate"][1])
        highs.changeColBounds(x, 0.0, new["top"][0])

    objective, _ = by_highs(plan, change)
    assert found.model.solve(new).objective == pytest.approx(objective, abs=1e-7)


def test_derivatives_go_through_what_was_read(tmp_path):
    path = tmp_path / "mix.lp"
    path.write_text(
        "Minimize\n obj: a + 2 b + 0.5 c + [ 2 a ^2 + 2 a * b + 4 b ^2 + 2 c ^2 ] / 2\nSubject To\n"
        " mix: a + 2 b + 3 c = 2\n top: 2 a + c <= 1.5\nEnd\n"
    )
    parameters = {"cost": "cost", "mix": ("coefficients", [("mix", "b")]), "side": ("rhs", "*")}
    found = dg.from_lp(path, parameters)
    layer = dg.DecisionLayer(found.model)
    at = {name: p.value for name, p in found.model.parameters.items()}
    solution = found.model.solve(at)
    assert solution.objective == pytest.approx(by_highs(path)[0], abs=1e-6)
    for name, value in at.items():
        matrix = solution.sensitivity_matrix(name)
        for k in range(value.size):
            step = 1e-6 * np.eye(value.size)[k].reshape(value.shape)
            ends = [layer.solve({**at, name: value + s * step}).x["continuous"] for s in (1, -1)]
            difference = (ends[0] - ends[1]) / 2e-6
            assert np.reshape(matrix, (difference.size, -1))[:, k] == pytest.approx(difference, abs=1e-6)


def random_model(rng, quadratic, integer):
    m = dg.Model("random model")
    x = m.continuous("x", shape=(2, 3), lb=0.0, ub=rng.uniform(1.0, 3.0, (2, 3)))
    y = m.continuous("y", lb=-np.inf, ub=4.0)
    k = m.integer("k", shape=2, lb=-2, ub=3) if integer else m.continuous("k", shape=2, lb=-2, ub=3)
    c = m.parameter("c", value=rng.normal(size=(2, 3)))
    m.minimize(dg.sum(c * x) - y + dg.sum(k) * 0.3 + 1.25 + (dg.sum_squares(x) + y * y if quadratic else 0.0))
    m.subject_to(x @ rng.uniform(0.5, 1.5, 3) <= 3.0, name="rows")
    m.subject_to(dg.sum(x) + y + k[0] - k[1] == 1.5, name="balance")
    m.subject_to(y >= k[0] - 2.5, name="tie")
    return m


@pytest.mark.parametrize("ending", ["mps", "lp"])
@pytest.mark.parametrize(("quadratic", "integer"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_the_model(tmp_path, ending, quadratic, integer, seed):
    rng = np.random.default_rng(seed)
    m = random_model(rng, quadratic, integer)
    params = {"c": rng.normal(size=(2, 3))}
    path = tmp_path / f"model.{ending}"
    {"mps": dg.to_mps, "lp": dg.to_lp}[ending](m, path, params)
    mine = m.solve(params)
    objective, values = by_highs(path)
    assert objective == pytest.approx(mine.objective, abs=1e-6)
    back = {"mps": dg.from_mps, "lp": dg.from_lp}[ending](path)
    again = back.model.solve()
    assert again.objective == pytest.approx(mine.objective, abs=1e-8)
    named = back.named(again.x)
    assert set(named) == set(values)
    if not integer:  # these have one solution
        for (i, j), value in np.ndenumerate(mine.x["x"]):
            assert named[f"x({i},{j})"] == pytest.approx(value, abs=1e-6)


def test_places_that_cannot_be_written(tmp_path):
    m = random_model(np.random.default_rng(0), False, False)
    with pytest.raises(dg.ModelError, match="is the folder there"):
        dg.to_mps(m, tmp_path / "none" / "model.mps")
    with pytest.raises(dg.ModelError, match=r"must end in \.lp"):
        dg.to_lp(m, tmp_path / "model.mps")


def test_a_maximization_is_written_as_a_minimization(tmp_path):
    m = dg.Model("gain")
    x = m.continuous("x", shape=2, lb=0.0, ub=1.0)
    m.maximize(dg.sum(np.array([1.0, 2.0]) * x) + 5.0)
    dg.to_mps(m, tmp_path / "gain.mps")
    assert by_highs(tmp_path / "gain.mps")[0] == pytest.approx(-8.0)
    assert dg.from_mps(tmp_path / "gain.mps").model.solve().objective == pytest.approx(-8.0)


def test_multipliers_by_row(plan):
    found = dg.from_lp(plan)
    duals = found.model.solve().duals
    assert found.dual(duals, "cap") == duals["at_most"][found.rows["cap"][0][1]]
    with pytest.raises(dg.ModelError, match="no row 'capp'"):
        found.dual(duals, "capp")


def test_compressed_files(tmp_path, plan):
    packed = tmp_path / "plan.lp.gz"
    with gzip.open(packed, "wt") as file:
        file.write(PLAN)
    assert dg.from_lp(packed).model.solve().objective == pytest.approx(by_highs(plan)[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"p": "prices"}, "'prices' is not one of cost, rhs"),
        ({"p": ("cost", ["q"])}, "no column 'q'; they are such as x, y"),
        ({"p": ("rhs", ["capp"])}, "no row 'capp'"),
        ({"p": ("cost", "flow_*")}, r"no column matches 'flow_\*'"),
        ({"p": ("coefficients", "cap")}, r"\(row, column\) pairs"),
        ({"p": ("upper", "y")}, "infinite in the file"),
        ({"p": "cost", "s": ("cost", ["x"])}, "a parameter already"),
        ({"p": ("cost", ["x", "x"])}, "a parameter already"),
    ],
)
def test_places_that_are_not_there(plan, parameters, message):
    with pytest.raises(dg.ModelError, match=message):
        dg.from_lp(plan, parameters)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        dg.from_mps(tmp_path / "none.mps")
    (tmp_path / "plan.txt").write_text(PLAN)
    with pytest.raises(dg.ModelError, match=r"does not end in \.lp"):
        dg.from_lp(tmp_path / "plan.txt")
    (tmp_path / "bad.lp").write_text("Minimize\n obj: 3 x +* y\n")
    with pytest.raises(dg.ModelError, match="not a file that HiGHS can read"):
        dg.from_lp(tmp_path / "bad.lp")
    (tmp_path / "both.mps").write_text(
        "NAME both\nROWS\n N obj\n L r\nCOLUMNS\n x obj 1 r 1\nRHS\n RHS r 4\nRANGES\n RNG r 3\nENDATA\n"
    )
    both = dg.from_mps(tmp_path / "both.mps")
    solved = both.model.solve()
    assert solved.objective == pytest.approx(1.0)
    assert both.dual(solved.duals, "r") == pytest.approx(-1.0)  # the lower side holds it
    with pytest.raises(dg.ModelError, match="two right-hand sides"):
        dg.from_mps(tmp_path / "both.mps", {"p": ("rhs", "*")})


def test_pyomo():
    pyo = pytest.importorskip("pyomo.environ")
    m = pyo.ConcreteModel()
    m.I = pyo.Set(initialize=["a", "b"])
    m.x = pyo.Var(m.I, bounds=(0, 4))
    m.use = pyo.Var(domain=pyo.Binary)
    m.cap = pyo.Constraint(expr=m.x["a"] + m.x["b"] <= 5)
    m.switch = pyo.Constraint(expr=m.x["b"] <= 4 * m.use)
    m.gain = pyo.Objective(expr=m.x["a"] + 3 * m.x["b"] - 2 * m.use, sense=pyo.maximize)
    found = dg.from_pyomo(m, {"gain": ("cost", ["x(a)", "x(b)"])})
    assert found.model.solve().objective == pytest.approx(1 + 12 - 2)
    assert found.model.solve({"gain": [3.0, 1.0]}).objective == pytest.approx(12.0)
    assert set(found.columns) >= {"x(a)", "x(b)", "use"}


def test_linopy():
    linopy = pytest.importorskip("linopy")
    m = linopy.Model()
    x = m.add_variables(lower=0, upper=4, coords=[["a", "b"]], dims=["item"], name="x")
    m.add_constraints(x.sum() <= 5, name="cap")
    m.add_objective((np.array([1.0, 3.0]) * x).sum(), sense="max")
    found = dg.from_linopy(m, {"gain": "cost"})
    assert found.model.solve().objective == pytest.approx(13.0)
    assert found.model.solve({"gain": [3.0, 1.0]}).objective == pytest.approx(13.0)


def test_gurobi():
    gurobipy = pytest.importorskip("gurobipy")
    m = gurobipy.Model()
    x = m.addVars(["a", "b"], ub=4, name="x")
    m.addConstr(x["a"] + x["b"] <= 5, name="cap")
    m.setObjective(x["a"] + 3 * x["b"], gurobipy.GRB.MAXIMIZE)
    m.update()
    found = dg.from_gurobi(m, {"gain": "cost"})
    assert abs(found.model.solve().objective) == pytest.approx(13.0)
    m.addConstr(x["a"] * x["a"] <= 5)
    m.update()
    with pytest.raises(dg.ModelError, match="NumQConstrs"):
        dg.from_gurobi(m)
