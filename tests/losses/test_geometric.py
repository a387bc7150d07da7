"""Losses on the geometry of the set, against nonnegative least squares and enumerated vertices."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.losses import AdjacentVertices, Batch, CaVE
from decigrad.losses.normal_cone import equality_normals, project, tight_constraints
from decigrad.losses.vertices import adjacent_vertices
from decigrad.problems import shortest_path_layer, shortest_path_samples
from decigrad.program import QuadraticProgram
from decigrad.registry import METHODS

KNOWN = np.array([0.3, 0.0, -0.2, 0.1, 0.0])
LOSSES = [CaVE(), CaVE(20, 0.2), CaVE(20, 0.2, 0.5), AdjacentVertices(), AdjacentVertices(0.0)]
named = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def choice(sense: str = "minimize", curved: bool = False) -> dg.DecisionLayer:
    """Take at most two weight units and exactly two items of five; maximizing states −c and −w."""
    m = dg.Model("choice")
    x = m.continuous("x", shape=5, lb=0.0, ub=1.0)
    c, w = m.parameter("cost", shape=5), m.parameter("known", shape=5, known=True)
    objective, sign = dg.sum(c * x) + dg.sum(w * x), 1.0 if sense == "minimize" else -1.0
    if curved:
        objective = objective + sign * 0.5 * dg.sum(x * x)
    m.minimize(objective) if sense == "minimize" else m.maximize(objective)
    m.subject_to(dg.sum(x) == 2.0)
    m.subject_to(np.array([1.0, 2.0, 0.5, 1.0, 1.5]) @ x <= 2.5)
    return dg.DecisionLayer(m)


LAYER, TWIN, CURVED = choice(), choice("maximize"), choice(curved=True)


def batch_of(loss: Any, true: np.ndarray, layer: dg.DecisionLayer) -> Batch:
    known = {"known": np.broadcast_to(layer.sign * KNOWN, true.shape)}
    flat = {"cost": true.reshape(-1, 5), "known": known["known"].reshape(-1, 5)}
    optimal, lead = layer.solve(flat), true.shape[:-1]
    prepared = {n: np.reshape(a, lead + a.shape[1:]) for n, a in loss.prepare(layer, optimal).items()}
    x = {n: a.reshape(lead + a.shape[1:]) for n, a in optimal.x.items()}
    return Batch(
        None, None, {"cost": true}, known, x, optimal.objective.reshape(lead), np.ones(lead),
        key=jax.random.PRNGKey(0), labels=prepared,
    )  # fmt: skip


def value(loss: Any, predicted: Any, true: np.ndarray, layer: dg.DecisionLayer = LAYER) -> Any:
    batch = batch_of(loss, true, layer)
    assert loss.queries(layer, {"cost": predicted}, batch) == {}
    return jax.jit(lambda p, batch: loss.value(layer, {"cost": p}, {}, batch))(predicted, batch)


def drawn(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(3).normal(size=(2, *shape, 5)))


# ------------------------------------------------------------------------------------------------- the cone


def generators(program: QuadraticProgram, x: np.ndarray) -> np.ndarray:
    """Rows that span the normal cone at x with nonnegative weights, written out."""
    A, G = program.A.matrix[0], program.G.matrix[0]
    rows = [*A, *-A, *G[np.abs(program.h[0] - G @ x) < 1e-7]]
    unit = np.eye(len(x))
    return np.array([*rows, *unit[x >= program.ub[0] - 1e-7], *-unit[x <= program.lb[0] + 1e-7]])


def test_the_projection_is_that_of_nonnegative_least_squares():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(project, in_axes=(0, None, None, 0, 0, 0, None)), static_argnums=6)
        for layer, layout in [(LAYER, (5,)), (shortest_path_layer(4, 4), (24,))]:
            costs = {"cost": rng.uniform(0.1, 2.0, (40, *layout))}
            if "known" in layer.parameters:
                costs["known"] = np.zeros((40, 5))
            labels = layer.solve(costs)
            tight = tight_constraints(labels)
            target = rng.normal(size=tight["x"].shape)
            single = jax.tree_util.tree_map(lambda a: a[0], labels.program)
            sides = (tight["rows"], tight["lower"], tight["upper"])
            found = together(target, equality_normals(layer, single), single, *sides, 200)
            for i in range(40):
                spanned = generators(labels.program, tight["x"][i])
                expected = nnls(spanned.T, target[i], maxiter=10_000)[0] @ spanned
                np.testing.assert_allclose(found[i], expected, atol=1e-6)


TRUNCATED = jax.jit(project, static_argnums=6)


def test_a_truncated_projection_is_in_the_cone():
    rng = np.random.default_rng(1)
    layer = shortest_path_layer(4, 4)
    labels = layer.solve({"cost": rng.uniform(0.1, 2.0, (10, 24))})
    tight = tight_constraints(labels)
    single = jax.tree_util.tree_map(lambda a: a[0], labels.program)
    normals = equality_normals(layer, single)
    for i in range(10):
        tight_i = (tight["rows"][i], tight["lower"][i], tight["upper"][i])
        with jax.enable_x64(True):
            found = np.asarray(TRUNCATED(rng.normal(size=24), normals, single, *tight_i, 5))
        spanned = generators(labels.program, tight["x"][i])
        assert nnls(spanned.T, found, maxiter=10_000)[1] < 1e-9


@pytest.mark.parametrize("layer", [LAYER, CURVED], ids=["linear", "curved"])
def test_cave_is_the_cosine_with_the_projection(layer):
    predicted, true = drawn(15)
    with jax.enable_x64(True):
        found = np.asarray(value(CaVE(300), predicted, true, layer))
        labels = layer.solve({"cost": true, "known": np.broadcast_to(KNOWN, true.shape)})
    for i in range(15):
        x = labels.x["x"][i]
        v = -(predicted[i] + KNOWN + (x if layer is CURVED else 0.0))
        spanned = generators(labels.program, x)
        p = nnls(spanned.T, v)[0] @ spanned
        assert found[i] == pytest.approx(1.0 - v @ p / np.linalg.norm(v) / np.linalg.norm(p), abs=1e-6)


@pytest.mark.parametrize("equality", [True, False])
def test_cave_where_rows_differ_by_sample_or_there_are_no_equalities(equality):
    m = dg.Model("rows")
    x, c = m.continuous("x", 3, lb=0.0, ub=1.0), m.parameter("cost", shape=3)
    row = m.parameter("row", shape=3, known=True)
    m.minimize(c @ x)
    m.subject_to(row @ x == 1.0 if equality else row @ x >= 1.0)
    layer, rng = dg.DecisionLayer(m), np.random.default_rng(0)
    given = {"row": rng.uniform(0.5, 2.0, (12, 3))}
    true, predicted = rng.normal(size=(2, 12, 3))
    with jax.enable_x64(True):
        labels = layer.solve({"cost": true, **given})
        batch = Batch(
            None, None, {"cost": true}, given, labels.x, None, np.ones(12), labels=tight_constraints(labels)
        )
        found = jax.jit(lambda p, b: CaVE(200).value(layer, {"cost": p}, {}, b))(predicted, batch)
    for i in range(12):
        spanned = generators(labels.program.sample(i), labels.x["x"][i])
        p = nnls(spanned.T, -predicted[i])[0] @ spanned
        if np.linalg.norm(p) > 1e-9:
            cosine = -predicted[i] @ p / np.linalg.norm(predicted[i]) / np.linalg.norm(p)
            assert found[i] == pytest.approx(1.0 - cosine, abs=1e-6)


@pytest.mark.parametrize("layer", [LAYER, CURVED], ids=["linear", "curved"])
def test_cave_vanishes_at_the_truth_and_exactly_where_the_decision_is_optimal(layer):
    predicted, true = drawn(60)
    with jax.enable_x64(True):
        np.testing.assert_allclose(value(CaVE(300), true, true, layer), 0.0, atol=1e-9)
        found = np.asarray(value(CaVE(300), predicted, true, layer))
        known = np.broadcast_to(KNOWN, true.shape)
        made, best = (layer.solve({"cost": c, "known": known}).x["x"] for c in (predicted, true))
    same = np.abs(made - best).max(1) < 1e-6
    np.testing.assert_array_equal(found < 1e-9, same)
    assert (same.any() or layer is CURVED) and not same.all()


# -------------------------------------------------------------------------------------------- the vertices


def all_vertices(program: QuadraticProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every vertex of a small polytope, by all choices of n tight rows of C x ≤ d; and C, d."""
    A, b, G, h = (np.asarray(a[0]) for a in (program.A.matrix, program.b, program.G.matrix, program.h))
    n = program.n
    C = np.vstack([A, -A, G, np.eye(n), -np.eye(n)])
    d = np.concatenate([b, -b, h, program.ub[0], -program.lb[0]])
    C, d = C[np.isfinite(d)], d[np.isfinite(d)]
    rest = range(2 * len(A), len(C))
    rank = np.linalg.matrix_rank(A) if len(A) else 0
    found = []
    for chosen in combinations(rest, n - rank):
        rows = [*range(len(A)), *chosen]
        if np.linalg.matrix_rank(C[rows]) == n:
            x = np.linalg.lstsq(C[rows], d[rows], rcond=None)[0]
            if (C @ x <= d + 1e-9).all():
                found.append(x.round(9) + 0.0)
    return np.unique(found, axis=0), C, d


def neighbours(x: np.ndarray, vertices: np.ndarray, C: np.ndarray, d: np.ndarray) -> set[bytes]:
    """Vertices that share n − 1 independent tight rows with x."""
    found = set()
    for y in vertices:
        both = C[(np.abs(C @ x - d) < 1e-7) & (np.abs(C @ y - d) < 1e-7)]
        if np.abs(x - y).max() > 1e-7 and np.linalg.matrix_rank(both) == len(x) - 1:
            found.add((y.round(6) + 0.0).tobytes())
    return found


def assignment() -> dg.DecisionLayer:
    """3 × 3 assignment, each row and column stated: degenerate at every vertex, with a dependent row."""
    m = dg.Model("assignment")
    x, c = m.continuous("x", shape=(3, 3), lb=0.0), m.parameter("cost", shape=(3, 3))
    m.minimize(dg.sum(c * x))
    m.subject_to(x.sum(axis=0) == 1.0)
    m.subject_to(x.sum(axis=1) == 1.0)
    return dg.DecisionLayer(m)


@pytest.mark.parametrize("case", ["nondegenerate", "assignment", "grid", "cross"])
def test_adjacent_vertices_are_those_of_the_enumerated_polytope(case):
    if case == "cross":  # an octahedron: four facets at each vertex in three dimensions
        m = dg.Model("octahedron")
        x, c = m.continuous("x", shape=3), m.parameter("cost", shape=3)
        m.minimize(c @ x)
        m.subject_to(np.array(list(product((1.0, -1.0), repeat=3))) @ x <= 1.0)
        layer = dg.DecisionLayer(m)
    else:
        grid = shortest_path_layer(3, 3) if case == "grid" else None
        layer = {"nondegenerate": LAYER, "assignment": assignment(), "grid": grid}[case]
    program = layer.solve({n: np.ones((1, *p.shape)) for n, p in layer.parameters.items()}).program
    vertices, C, d = all_vertices(program)
    assert len(vertices) == {"nondegenerate": len(vertices), "assignment": 6, "grid": 6, "cross": 6}[case]
    for x in vertices:
        expected = neighbours(x, vertices, C, d)
        found = {(y.round(6) + 0.0).tobytes() for y in adjacent_vertices(program, x, 600)}
        assert found == expected and expected
        few = {(y.round(6) + 0.0).tobytes() for y in adjacent_vertices(program, x, 1)}
        assert few <= expected


def test_the_vertex_loss_by_brute_force_and_its_zero():
    predicted, true = drawn(30)
    known = np.broadcast_to(KNOWN, true.shape)
    with jax.enable_x64(True):
        labels = LAYER.solve({"cost": true, "known": known})
        vertices, C, d = all_vertices(labels.program)
        for margin in (0.0, 0.7):
            found = np.asarray(value(AdjacentVertices(margin), predicted, true))
            for i in range(30):
                x = labels.x["x"][i]
                near = [np.frombuffer(b) for b in neighbours(x, vertices, C, d)]
                rise = [((c + KNOWN) @ (np.array(near) - x).T) for c in (true[i], predicted[i])]
                expected = np.maximum(0.0, margin * rise[0] - rise[1]).mean()
                assert found[i] == pytest.approx(expected, abs=1e-5)
            if not margin:
                values = (predicted + KNOWN) @ vertices.T
                optimal = ((predicted + KNOWN) * labels.x["x"]).sum(1) <= values.min(1) + 1e-9
                np.testing.assert_array_equal(found < 1e-9, optimal)
        np.testing.assert_allclose(value(AdjacentVertices(), true, true), 0.0, atol=1e-9)


# --------------------------------------------------------------------------------------- all of them alike


@named
def test_the_gradient_is_the_slope_of_the_value(loss):
    if getattr(loss, "inner", 0.0):
        return  # the target moves, and counts as fixed by definition
    loss = CaVE(1000) if isinstance(loss, CaVE) else loss
    predicted, true = drawn(2)
    with jax.enable_x64(True):
        batch = batch_of(loss, true, LAYER)
        total = jax.jit(lambda p: loss.value(LAYER, {"cost": p}, {}, batch).sum())
        found = np.asarray(jax.grad(total)(jnp.asarray(predicted)))
        for i, j in product(range(2), range(5)):
            step = np.zeros((2, 5))
            step[i, j] = 1e-6
            slope = float(total(predicted + step) - total(predicted - step)) / 2e-6
            assert found[i, j] == pytest.approx(slope, abs=1e-5)


@named
def test_maximizing_the_negative_is_the_same_and_lanes_lead(loss):
    predicted, true = drawn(2, 3)
    with jax.enable_x64(True):
        found = value(loss, predicted, true)
        np.testing.assert_allclose(value(loss, -predicted, -true, TWIN), found, atol=1e-10)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(value(loss, predicted[1, 1:2], true[1, 1:2]), found[1, 1:2], atol=1e-12)


def test_the_targets_of_the_variants_are_those_of_the_definition():
    predicted, true = drawn(8)
    predicted[0] = true[0]  # inside its cone
    with jax.enable_x64(True):
        labels = LAYER.solve({"cost": true, "known": np.broadcast_to(KNOWN, true.shape)})
        plus = np.asarray(value(CaVE(300, 0.2), predicted, true))
        near = np.asarray(value(CaVE(300, 0.2, 0.0), predicted, true))
        np.testing.assert_allclose(value(CaVE(300, 0.2, 1.0), predicted, true), plus, atol=1e-12)
    assert plus[0] == pytest.approx(0.0, abs=1e-9)
    for i in range(1, 8):
        spanned = generators(labels.program, labels.x["x"][i])
        v = -(predicted[i] + KNOWN)
        p = nnls(spanned.T, v)[0] @ spanned
        unit = [g / np.linalg.norm(g) for g in spanned[2:]]  # without the equality's two sides
        for found, base in ((plus, p), (near, v)):
            aim = 0.8 * base / np.linalg.norm(base) + 0.2 * np.mean(unit, axis=0)
            cosine = v @ aim / np.linalg.norm(v) / np.linalg.norm(aim)
            assert found[i] == pytest.approx(1.0 - cosine, abs=1e-6)


# ----------------------------------------------------------------------------------------- refused, trained


def test_what_the_geometry_cannot_see_is_refused():
    m = dg.Model()
    x = m.continuous("x", shape=3)
    m.minimize(m.parameter("cost", shape=3) @ x)
    hidden = dg.DecisionLayer(m, solver=dg.oracles.TopK(3, 1))
    for loss in (CaVE(), AdjacentVertices()):
        with pytest.raises(ModelError, match="states none"):
            loss.check(hidden)
    with pytest.raises(ModelError, match="linear objective"):
        AdjacentVertices().check(CURVED)
    program = LAYER.solve({"cost": np.ones((1, 5)), "known": np.ones((1, 5))}).program
    with pytest.raises(ModelError, match="not a vertex"):
        adjacent_vertices(program, np.full(5, 0.4), 10)
    for make in (
        lambda: CaVE(0),
        lambda: CaVE(inner=1.0),
        lambda: CaVE(alpha=0.5),
        lambda: AdjacentVertices(-1.0),
    ):
        with pytest.raises(ModelError):
            make()


@pytest.mark.parametrize("loss", [CaVE(20, 0.2), AdjacentVertices()], ids=repr)
def test_a_sample_without_a_decision_is_left_out(loss):
    m = dg.Model("capacity")
    x, c, room = (
        m.continuous("x", 3, lb=0.0, ub=1.0),
        m.parameter("c", shape=3),
        m.parameter("room", known=True),
    )
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == room)
    rng = np.random.default_rng(0)
    features, rooms = rng.normal(size=(20, 2)), rng.uniform(0.5, 2.5, 20)
    rooms[7] = 9.0  # cannot be met
    data = dg.Dataset(features, {"c": np.abs(features @ rng.normal(size=(2, 3)))}, {"room": rooms})
    layer = dg.DecisionLayer(m, throw=False)
    result = dg.fit(dg.Linear(), layer, data, loss, epochs=2, selection=None)
    assert set(result.failures) == {7}
    assert np.isfinite(result.predictor.weight).all() and np.isfinite(result.history["loss"]).all()


@pytest.mark.parametrize("name", ["cave-hybrid", "adjacent-vertices"])
def test_training_recovers_from_a_bad_start(name):
    features, costs, _ = shortest_path_samples(60, rows=3, cols=3)
    data = dg.Dataset(features, {"cost": costs})
    layer, loss = shortest_path_layer(3, 3), METHODS[name].make().loss
    options = {"selection": None, "warm_start": False, "epochs": 15, "learning_rate": 0.1}
    result = dg.fit(dg.Linear(), layer, data, loss, **options)
    start, end = (dg.evaluate(p, layer, data).normalized_regret for p in (result.two_stage, result.predictor))
    assert end < 0.7 * start and result.solver_calls == 60
