"""The decision layer as a function: transformations compose, batches share, failures stay alone."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.reference import sparsemax

import decigrad as dg
from decigrad import batching
from decigrad.errors import InfeasibleError, ModelError

COSTS = np.array([0.2, 0.5, 0.1, 0.9])


@pytest.fixture(autouse=True)
def float64() -> Any:
    with jax.enable_x64(True):
        yield


def simplex(mu: float = 1.0, sense: str = "minimize", n: int = 4) -> dg.Model:
    """min cᵀx + μ/2 ‖x‖² over the simplex: sparsemax(−c/μ). With mu = 0 a linear program."""
    m = dg.Model("simplex")
    x, c = m.continuous("x", shape=n, lb=0.0), m.parameter("c", shape=n)
    goal = c @ x + 0.5 * mu * dg.sum_squares(x) if mu else c @ x
    (m.minimize if sense == "minimize" else m.maximize)(goal if sense == "minimize" else -goal)
    m.subject_to(dg.sum(x) == 1.0)
    return m


LAYER = dg.DecisionLayer(simplex(), solver="daqp")


def decide(c: Any) -> Any:
    return LAYER({"c": c})["x"]


def sparsemax_jacobian(c: np.ndarray, mu: float = 1.0) -> np.ndarray:
    """d sparsemax(−c/μ) / dc = −(diag(s) − s sᵀ/|S|)/μ with the support s (Martins and Astudillo, 2016)."""
    s = (sparsemax(-c / mu) > 0).astype(float)
    return -(np.diag(s) - np.outer(s, s) / s.sum()) / mu


# ---------------------------------------------------------------------------------------- transformations


def test_values_inside_and_outside_a_trace_agree_with_the_closed_form() -> None:
    np.testing.assert_allclose(decide(COSTS), [0.4, 0.1, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(jax.jit(decide)(COSTS), decide(COSTS), atol=1e-12)


def test_jacobians_in_both_modes_match_the_closed_form() -> None:
    expected = sparsemax_jacobian(COSTS)
    np.testing.assert_allclose(jax.jacrev(decide)(COSTS), expected, atol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(decide)(COSTS), expected, atol=1e-10)
    moved = jax.jvp(decide, (jnp.asarray(COSTS),), (jnp.arange(4.0),))[1]
    np.testing.assert_allclose(moved, expected @ np.arange(4.0), atol=1e-10)


def test_vmap_equals_the_loop_and_the_batched_call() -> None:
    batch = np.random.default_rng(0).uniform(0.0, 1.0, (5, 4))
    loop = np.stack([decide(c) for c in batch])
    np.testing.assert_allclose(jax.vmap(decide)(batch), loop, atol=1e-14)
    np.testing.assert_allclose(decide(batch), loop, atol=1e-14)
    np.testing.assert_allclose(decide(batch.reshape(5, 1, 4))[:, 0], loop, atol=1e-14)


def test_hessian_of_the_value_is_the_jacobian_of_the_decision() -> None:
    """The value's gradient is x*(c) by the envelope theorem, so its Hessian is dx*/dc."""

    def value(c: Any) -> Any:
        return LAYER.value({"c": c})

    np.testing.assert_allclose(jax.grad(value)(COSTS), sparsemax(-COSTS), atol=1e-10)
    np.testing.assert_allclose(jax.hessian(value)(COSTS), sparsemax_jacobian(COSTS), atol=1e-8)


def test_a_network_through_the_layer_matches_central_differences() -> None:
    rng = np.random.default_rng(1)
    features, W = rng.standard_normal((6, 3)), rng.standard_normal((3, 4)) / 3

    @jax.jit
    def loss(W: Any) -> Any:
        hidden = jnp.tanh(features @ W)
        return (decide(hidden) ** 2 @ jnp.arange(1.0, 5.0)).sum()

    gradient, direction, step = jax.grad(loss)(W), rng.standard_normal(W.shape), 1e-6
    numeric = (loss(W + step * direction) - loss(W - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-6, abs=1e-7)


def test_the_gradient_of_a_shared_parameter_is_the_sum_over_the_batch() -> None:
    m = dg.Model()
    x = m.continuous("x", shape=2)
    c, h = m.parameter("c", shape=2), m.parameter("h")
    m.minimize(c @ x + dg.sum_squares(x))
    m.subject_to(dg.sum(x) == h)
    layer = dg.DecisionLayer(m)
    batch = np.random.default_rng(2).standard_normal((7, 2))

    def total(h: Any, batch: Any) -> Any:
        return (layer({"c": batch, "h": h})["x"][..., 0] ** 2).sum()

    shared = jax.grad(total)(1.5, batch)
    alone = sum(jax.grad(total)(1.5, c) for c in batch)
    assert float(shared) == pytest.approx(float(alone), rel=1e-12)


def test_one_vmapped_batch_is_one_call_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    solver = dg.solvers.DAQP(max_iterations=9_999)

    class Counting(dg.solvers.DAQP):
        def __call__(self, program: Any) -> Any:
            calls.append(program.batch_size)
            return super().__call__(program)

    layer = dg.DecisionLayer(simplex(), solver=Counting(max_iterations=solver.max_iterations))
    batch = np.random.default_rng(0).uniform(0.0, 1.0, (6, 4))
    jax.jit(jax.vmap(lambda c: layer({"c": c})["x"]))(batch).block_until_ready()
    assert calls == [6]
    calls.clear()
    jax.jit(jax.grad(lambda c: layer({"c": c})["x"][:, 0].sum()))(batch).block_until_ready()
    assert calls == [6]


class GivesUp(dg.solvers.InteriorPoint):
    """Refuses samples whose first cost is above one half."""

    def __call__(self, program: Any) -> Any:
        raw = super().__call__(program)
        lost = program.q[:, 0] > 0.5
        status = jax.numpy.where(lost, int(dg.Status.NUMERICAL_ERROR), raw.status)
        return raw.replace(x=jax.numpy.where(lost[:, None], jax.numpy.nan, raw.x), status=status)


def test_what_the_interior_point_gives_up_is_handed_on() -> None:
    batch = np.random.default_rng(0).uniform(0.0, 1.0, (6, 4))
    found = dg.DecisionLayer(simplex(), solver=GivesUp()).solve({"c": batch})
    np.testing.assert_array_equal(found.stats["handed_on"], batch[:, 0] > 0.5)
    assert 0 < found.stats["handed_on"].sum() < 6
    expected = dg.DecisionLayer(simplex(), solver="daqp").solve({"c": batch})
    assert not expected.stats["handed_on"].any()
    np.testing.assert_allclose(found.x["x"], expected.x["x"], atol=1e-12)
    alone = simplex().solve({"c": batch[found.stats["handed_on"]][0]}, solver=GivesUp())
    assert alone.stats["handed_on"] is True
    assert not simplex().solve({"c": batch[0]}, solver="daqp").stats["handed_on"]


def test_what_is_shared_stays_shared_on_the_host() -> None:
    """A matrix that the batch shares reaches the solver once, with a leading axis of one."""
    seen: list[tuple[int, ...]] = []

    def function(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
        seen.append(matrix.shape)
        return (matrix @ vector[..., None])[..., 0]

    result = jax.ShapeDtypeStruct((2,), np.float64)
    M = jnp.arange(4.0).reshape(2, 2)
    out = jax.vmap(lambda v: batching.host_call(function, result, M, v))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(out, np.tile([1.0, 5.0], (3, 1)))
    assert seen == [(1, 2, 2)]


def test_two_forward_calls_before_a_backward_keep_their_own_gradients() -> None:
    first, second = jnp.asarray(COSTS), jnp.asarray([0.9, 0.1, 0.5, 0.2])
    _, pull_first = jax.vjp(decide, first)
    _, pull_second = jax.vjp(decide, second)
    e = jnp.arange(4.0)
    np.testing.assert_allclose(pull_first(e)[0], sparsemax_jacobian(np.asarray(first)) @ e, atol=1e-10)
    np.testing.assert_allclose(pull_second(e)[0], sparsemax_jacobian(np.asarray(second)) @ e, atol=1e-10)


def test_products_with_a_parameter_that_vanish_have_derivatives() -> None:
    m = dg.Model()
    x, p = m.continuous("x", shape=2), m.parameter("p", shape=2)
    m.minimize(dg.sum(x * x))
    m.subject_to(np.eye(2) @ x + np.zeros((2, 2)) @ (p * x) == p)
    layer = dg.DecisionLayer(m)
    jacobian = jax.jacrev(lambda p: layer({"p": p})["x"])(jnp.asarray([2.0, 1.0]))
    np.testing.assert_allclose(jacobian, np.eye(2), atol=1e-12)


def test_float32_in_float32_out() -> None:
    with jax.enable_x64(False):
        c = jnp.asarray(COSTS, jnp.float32)
        x, gradient = jax.value_and_grad(lambda c: decide(c)[1])(c)
        assert x.dtype == gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, sparsemax_jacobian(COSTS)[1], atol=1e-6)


def test_the_interior_point_inside_jit_agrees() -> None:
    layer = dg.DecisionLayer(simplex(), solver="interior-point")
    x, pull = jax.vjp(lambda c: layer({"c": c})["x"], jnp.asarray(COSTS))
    np.testing.assert_allclose(x, [0.4, 0.1, 0.5, 0.0], atol=1e-10)
    np.testing.assert_allclose(
        pull(jnp.arange(4.0))[0], sparsemax_jacobian(COSTS) @ np.arange(4.0), atol=1e-8
    )


# ----------------------------------------------------------------------------------------------- failures


def capacity() -> dg.DecisionLayer:
    """min (x − p)² over 0 ≤ x ≤ h: infeasible for h < 0."""
    m = dg.Model("capacity")
    x, p, h = m.continuous("x", lb=0.0), m.parameter("p"), m.parameter("h")
    m.minimize((x - p) ** 2)
    m.subject_to(x <= h, name="capacity")
    return dg.DecisionLayer(m, solver="daqp")


def test_a_failed_sample_leaves_its_neighbours_untouched() -> None:
    layer, p = capacity(), np.array([0.5, 0.5, 3.0])
    h = np.array([1.0, -1.0, 1.0])
    found = layer.solve({"p": p, "h": h}, throw=False)
    np.testing.assert_array_equal(found.ok, [True, False, True])
    assert found.status[1] == dg.Status.PRIMAL_INFEASIBLE
    np.testing.assert_array_equal(found.failed, [1])
    np.testing.assert_allclose(found.x["x"], [0.5, np.nan, 1.0])
    in_p, in_h = jax.jit(jax.grad(lambda p, h: layer({"p": p, "h": h})["x"].sum(), argnums=(0, 1)))(p, h)
    np.testing.assert_allclose(in_p, [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(in_h, [0.0, 0.0, 1.0], atol=1e-12)
    x, status = jax.jit(layer.traced)({"p": p, "h": h})
    np.testing.assert_allclose(x["x"], [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(status == dg.Status.OPTIMAL, [True, False, True])


def test_throw_names_the_sample_and_the_conflict() -> None:
    layer = capacity()
    with pytest.raises(InfeasibleError, match=r"sample 1 is infeasible.*capacity"):
        layer.solve({"p": 0.0, "h": np.array([1.0, -1.0, 1.0])})
    with pytest.raises(InfeasibleError, match=r"sample \(1, 0\)"):
        layer.solve({"p": 0.0, "h": np.array([[1.0, 1.0], [-1.0, 1.0]])})
    quiet = dg.DecisionLayer(layer.model, throw=False)
    assert np.isnan(quiet({"p": 0.0, "h": -1.0})["x"])


def test_bad_input_is_named() -> None:
    layer = capacity()
    with pytest.raises(ModelError, match=r"'c' has shape \(4,\) .* got \(3,\)"):
        LAYER({"c": np.ones(3)})
    with pytest.raises(ModelError, match="no parameter 'q'"):
        layer({"q": 1.0})
    with pytest.raises(ModelError, match="'h' has no value"):
        layer({"p": 1.0})
    with pytest.raises(ModelError, match=r"'p'.*sample 1 is NaN"):
        layer({"p": np.array([1.0, np.nan]), "h": 1.0})
    with pytest.raises(ModelError, match="do not fit each other"):
        layer({"p": np.ones(3), "h": np.ones(2)})
    with pytest.raises(ModelError, match="no parameter 'z'"):
        dg.DecisionLayer(simplex(), predicts=["z"])


# ---------------------------------------------------------------------------------- smoothing and senses


def test_the_quadratically_smoothed_linear_program_is_sparsemax() -> None:
    """TARGETS' figures: μ = ½ gives (.4, 0, .6, 0)."""
    layer = dg.DecisionLayer(simplex(mu=0.0), gradient=dg.Smoothed(0.5))
    assert layer.gradient.changes_forward
    np.testing.assert_allclose(layer({"c": COSTS})["x"], [0.4, 0.0, 0.6, 0.0], atol=1e-10)
    jacobian = jax.jacrev(lambda c: layer({"c": c})["x"])(COSTS)
    np.testing.assert_allclose(jacobian, sparsemax_jacobian(COSTS, 0.5), atol=1e-9)
    np.testing.assert_allclose(layer.exact({"c": COSTS})["x"], [0.0, 0.0, 1.0, 0.0], atol=1e-10)


def test_the_barrier_has_its_closed_form_and_its_derivative() -> None:
    """w = μ/(c − λ) with Σw = 1; differentiating, dw/dc = −diag(w²)/μ + w²(w²)ᵀ/(μ Σw²)."""
    mu = 0.1
    layer = dg.DecisionLayer(simplex(mu=0.0), gradient=dg.Smoothed(mu, kind="barrier"))
    w, pull = jax.vjp(lambda c: layer({"c": c})["x"], jnp.asarray(COSTS))
    np.testing.assert_allclose(w, [0.30488, 0.15924, 0.43860, 0.09728], atol=1e-5)
    np.testing.assert_allclose(np.ptp(mu / w - COSTS), 0.0, atol=1e-7)
    s = np.asarray(w) ** 2
    expected = -(np.diag(s) - np.outer(s, s) / s.sum()) / mu
    np.testing.assert_allclose(pull(jnp.arange(4.0))[0], expected @ np.arange(4.0), atol=1e-6)


@pytest.mark.parametrize("bad", [{"mu": 0.0}, {"mu": -1.0}, {"mu": 1.0, "kind": "other"}])
def test_smoothing_refuses_nonsense(bad: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="Smoothed"):
        dg.Smoothed(**bad)


def test_the_exact_derivative_of_a_linear_program_is_zero() -> None:
    layer = dg.DecisionLayer(simplex(mu=0.0))
    assert layer.solver.name == "highs"
    np.testing.assert_allclose(layer({"c": COSTS})["x"], [0.0, 0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(jax.jacrev(lambda c: layer({"c": c})["x"])(COSTS), 0.0, atol=1e-12)


def test_maximizing_is_minimizing_the_negative() -> None:
    up = dg.DecisionLayer(simplex(sense="maximize"), solver="daqp")
    np.testing.assert_array_equal(up({"c": COSTS})["x"], decide(COSTS))
    pulled = jax.grad(lambda c: up({"c": c})["x"][0])(COSTS)
    np.testing.assert_allclose(pulled, sparsemax_jacobian(COSTS)[0], atol=1e-10)
    found = up.solve({"c": COSTS})
    assert float(found.objective) == pytest.approx(-float(LAYER.solve({"c": COSTS}).objective))
    value = jax.grad(lambda c: up.value({"c": c}))(COSTS)
    np.testing.assert_allclose(value, -sparsemax(-COSTS), atol=1e-10)


def test_the_adjoint_on_the_host_equals_the_pullback() -> None:
    batch = np.random.default_rng(4).uniform(0.0, 1.0, (3, 4))
    cotangent = np.random.default_rng(5).standard_normal((3, 4))
    found = LAYER.solve({"c": batch})
    adjoint = found.adjoint({"x": cotangent}, LAYER.form)
    pulled = jax.vjp(decide, batch)[1](jnp.asarray(cotangent))[0]
    np.testing.assert_allclose(-adjoint[:, :4], pulled, atol=1e-12)


def test_known_parameters_are_not_predicted_and_layers_of_equal_structure_are_equal() -> None:
    m = dg.Model()
    x = m.continuous("x", shape=2, lb=0.0)
    c, b = m.parameter("c", shape=2), m.parameter("budget", known=True)
    m.minimize(c @ x + dg.sum_squares(x))
    m.subject_to(dg.sum(x) <= b)
    layer = dg.DecisionLayer(m)
    assert layer.predicts == ("c",)
    assert dg.DecisionLayer(simplex(), solver="daqp") == LAYER
    assert hash(dg.DecisionLayer(simplex(), solver="daqp")) == hash(LAYER)
    assert "DecisionLayer" in repr(layer)


def test_copies_and_pickles_of_a_layer_share_its_compiled_functions() -> None:
    assert copy.deepcopy(LAYER) is LAYER
    again = pickle.loads(pickle.dumps(LAYER))
    assert again == LAYER and again.form is LAYER.form
    m = simplex()
    copied = copy.deepcopy(m)
    assert copied.form is m.form and copied.parameters["c"] is not m.parameters["c"]
    layer = dg.DecisionLayer(m)
    m.subject_to(m.variables["x"][0] <= 0.5)
    with pytest.raises(ModelError, match="make the layer again"):
        pickle.dumps(layer)


def test_any_expression_is_evaluated_by_sample() -> None:
    m = simplex()
    layer = dg.DecisionLayer(m, solver="daqp")
    x, c = m.variables["x"], m.parameters["c"]
    batch = np.random.default_rng(6).uniform(0.0, 1.0, (3, 4))
    found = layer({"c": batch})
    scored = layer.evaluate(c @ x, found, {"c": batch})
    np.testing.assert_allclose(scored, (batch * np.asarray(found["x"])).sum(1), rtol=1e-12)
    other = dg.Model().continuous("x", shape=4)
    with pytest.raises(ModelError, match="belongs to another model"):
        layer.evaluate(dg.sum(other), found, {"c": batch})
