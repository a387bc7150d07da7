"""`fit`: its steps against NumPy, its two paths against each other, its selection and its ways to stop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import decigrad as dg
from decigrad import steps
from decigrad.errors import ModelError, SolveError
from decigrad.losses import MSE, LeastSquares, Regret

EPS = 0.4


def simplex_model(sense: str = "minimize") -> dg.Model:
    m = dg.Model("simplex")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    objective = dg.sum(c * x) + EPS * dg.sum(x * x)
    m.minimize(objective) if sense == "minimize" else m.maximize(-objective)
    m.subject_to(dg.sum(x) == 1.0)
    return m


MODEL = simplex_model()
HOST = dg.DecisionLayer(MODEL, solver="daqp")
ONE_RATE = optax.sgd(0.05)  # one object: optimizers are compared by identity, and equal recipes compile once


def samples(n: int = 24, seed: int = 0, weights=None) -> dg.Dataset:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 2))
    curved = 0.6 * features[:, :1] * features[:, 1:] * [1.0, -1.0, 0.5]
    costs = 1.0 + features @ [[0.5, -0.3, 0.1], [0.2, 0.4, -0.5]] + curved
    return dg.Dataset(features, {"cost": costs}, weights=weights)


DATA = samples()
LATE = samples(weights=np.arange(24) < 16)  # the last have no weight


def steady(layer=HOST, data=DATA, loss=None, predictor=None, **options):
    """A fit without selection: its steps and nothing else."""
    options = {"selection": None, "epochs": 2, "batch_size": 8, "optimizer": ONE_RATE, **options}
    return dg.fit(predictor or dg.Linear(), layer, data, loss or Regret(), **options)


def is_jax(leaf) -> bool:
    """What is trained; NumPy arrays, a network's scalings, are not."""
    return isinstance(leaf, jax.Array)


def same_bits(one, other) -> bool:
    pairs = zip(jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


# ------------------------------------------------------------------------------- closed forms, in NumPy


def sparsemax(v: np.ndarray) -> np.ndarray:
    """The projection onto the simplex, by row (Martins and Astudillo, 2016)."""
    ordered = -np.sort(-v, axis=1)
    sums = np.cumsum(ordered, axis=1) - 1.0
    count = (ordered * np.arange(1, v.shape[1] + 1) > sums).sum(1)
    return np.maximum(v - (sums[np.arange(len(v)), count - 1] / count)[:, None], 0.0)


def decide(cost: np.ndarray) -> np.ndarray:
    return sparsemax(-cost / (2 * EPS))


def objective(x: np.ndarray, cost: np.ndarray) -> np.ndarray:
    return (cost * x).sum(1) + EPS * (x * x).sum(1)


def regret(predicted: np.ndarray, cost: np.ndarray) -> np.ndarray:
    return objective(decide(predicted), cost) - objective(decide(cost), cost)


def regret_gradient(predicted: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """(dx*/dĉ)ᵀ ∇f with the Jacobian −(diag(s) − ssᵀ/|S|)/2ε of the sparsemax."""
    x = decide(predicted)
    support = (x > 0).astype(float)
    slope = support * (cost + 2 * EPS * x)
    return -(slope - support * slope.sum(1, keepdims=True) / support.sum(1, keepdims=True)) / (2 * EPS)


# ----------------------------------------------------------------------------------------------- the steps


def test_steps_are_those_of_a_loop_in_numpy():
    w = np.random.default_rng(5).uniform(0.0, 2.0, size=22)
    w[3] = 0.0
    data = samples(22, weights=w)
    phi, cost = np.column_stack([data.features, np.ones(22)]), data.targets["cost"]
    root = np.sqrt(w)[:, None]
    anchor = np.linalg.lstsq(root * phi, root * cost, rcond=None)[0]
    pull = 0.7 * np.average(regret(phi @ anchor, cost), weights=w)
    spread = np.sqrt(np.average((cost - np.average(cost, axis=0, weights=w)) ** 2, axis=0, weights=w))
    weight, losses, rng = anchor.copy(), [], np.random.default_rng(3)
    for _ in range(3):
        order, by_batch, sizes = rng.permutation(22), [], []
        for at in (order[:8], order[8:16], order[16:]):
            predicted = phi[at] @ weight
            slope = regret_gradient(predicted, cost[at])
            slope += pull * 2 * (predicted - phi[at] @ anchor) / spread**2 / 3
            by_batch.append(np.average(regret(predicted, cost[at]), weights=w[at]))
            sizes.append(w[at].sum())
            weight = weight - 0.05 * phi[at].T @ (w[at, None] * slope) / w[at].sum()
        losses.append(np.average(by_batch, weights=sizes))
    found = steady(data=data, predictor=dg.Linear(standardize=False), epochs=3, seed=3, proximal_weight=0.7)
    np.testing.assert_allclose(found.predictor.coefficients[0], weight[:2].T, atol=1e-9)
    np.testing.assert_allclose(found.predictor.coefficients[1], weight[2], atol=1e-9)
    np.testing.assert_allclose(found.history["loss"], losses, atol=1e-9)
    assert found.history["failed"] == [0, 0, 0]
    np.testing.assert_allclose(found.two_stage.coefficients[0], anchor[:2].T, atol=1e-10)


def test_host_and_device_solvers_train_alike():
    options = {"optimizer": None, "learning_rate": 0.05, "seed": 1, "proximal_weight": 0.3}
    device_layer = dg.DecisionLayer(MODEL, solver="interior-point")
    host, device = (steady(layer, **options) for layer in (HOST, device_layer))
    for one, other in zip(*map(jax.tree_util.tree_leaves, (host.predictor, device.predictor)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)
    np.testing.assert_allclose(host.history["loss"], device.history["loss"], atol=1e-8)
    assert host.solver_calls == device.solver_calls > 0


def test_a_step_is_the_gradient_of_the_mean_regret_in_the_weights():
    with jax.enable_x64(True):
        start = dg.MLP((3,), "tanh").init(DATA, (("cost", (3,)),), seed=2)
        flat, unravel = ravel_pytree(eqx.filter(start, is_jax))
        found = steady(predictor=start, warm_start=False, epochs=1, batch_size=24, optimizer=optax.sgd(1.0))
        after, _ = ravel_pytree(eqx.filter(found.predictor, is_jax))
        predict = jax.jit(
            lambda weights: jax.vmap(eqx.combine(unravel(weights), start))(DATA.features)["cost"]
        )

        def mean_regret(weights: np.ndarray) -> float:
            return regret(np.asarray(predict(weights)), DATA.targets["cost"]).mean()

        for i in range(0, flat.size, 3):
            step = 1e-6 * np.eye(flat.size)[i]
            slope = (mean_regret(flat + step) - mean_regret(flat - step)) / 2e-6
            assert float(flat[i] - after[i]) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("recipe", [dg.Linear(), dg.MLP((3,))], ids=["linear", "mlp"])
def test_scalings_are_not_trained(recipe):
    found = steady(predictor=recipe, warm_start=False)
    for name in ("mean", "spread", "shift", "scale"):
        np.testing.assert_array_equal(getattr(found.predictor, name), getattr(found.two_stage, name))


def test_a_step_may_take_one_sample():
    single, doubled = (
        steady(data=DATA.take(at), batch_size=b, epochs=1) for at, b in (([3, 9], 1), ([3, 9], 2))
    )
    assert single.history["failed"] == doubled.history["failed"] == [0]
    assert np.isfinite(single.predictor.weight).all()


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples_by_weight():
    data = samples(9, seed=3, weights=[1.0, 2.0, 0.0, 1.0, 0.5, 0.0, 3.0, 1.0, 1.0])
    for layer in (HOST, dg.DecisionLayer(MODEL, solver="interior-point")):
        found = steady(layer, data, batch_size=4, epochs=1, optimizer=optax.sgd(0.0))
        regret = dg.evaluate(found.two_stage, layer, data).regret  # nothing moves, the last batch has one
        assert found.history["loss"] == pytest.approx([np.average(regret, weights=data.weights)], abs=1e-12)


def test_a_sample_without_weight_is_absent():
    data, options = samples(9), {"batch_size": 10, "proximal_weight": 0.7, "optimizer": optax.sgd(0.5)}
    extended = np.vstack([data.features, [3.0, 4.0]]), np.vstack([data.targets["cost"], [9.0, 0.0, 5.0]])
    more = dg.Dataset(extended[0], {"cost": extended[1]}, weights=np.arange(10) < 9)
    found, plain = (steady(data=some, **options) for some in (more, data))
    assert abs(plain.predictor.coefficients[0] - plain.two_stage.coefficients[0]).max() > 1e-3
    for one, other in zip(found.predictor.coefficients, plain.predictor.coefficients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_maximizing_is_minimizing_the_negative():
    twin = steady(dg.DecisionLayer(simplex_model("maximize"), solver="daqp"))
    np.testing.assert_allclose(twin.predictor.weight, steady().predictor.weight, atol=1e-10)
    assert min(twin.history["loss"]) >= 0


def test_known_parameters_differ_by_sample_and_are_not_predicted():
    m = dg.Model("capacity")
    x = m.continuous("x", shape=3, lb=0.0)
    c, total = m.parameter("cost", shape=3), m.parameter("total", known=True)
    m.minimize(dg.sum(c * x) + EPS * dg.sum(x * x))
    m.subject_to(dg.sum(x) == total)
    # Twice the amount at twice the cost is the same shares: the regret is four times that of the simplex.
    data = dg.Dataset(DATA.features, {"cost": 2 * DATA.targets["cost"]}, {"total": np.full(len(DATA), 2.0)})
    found, plain = steady(dg.DecisionLayer(m, solver="daqp"), data), steady()
    np.testing.assert_allclose(found.history["loss"][0], 4 * plain.history["loss"][0], rtol=0.2)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            dg.evaluate(found.two_stage, dg.DecisionLayer(m, solver="daqp"), data).regret,
            4 * dg.evaluate(plain.two_stage, HOST, DATA).regret,
            atol=1e-9,
        )


# --------------------------------------------------------------------------------------- seeds and starts


def test_the_same_seed_gives_the_same_bits():
    first, again, other = (steady(seed=s) for s in (7, 7, 8))
    assert same_bits(first.predictor, again.predictor) and first.history == again.history
    assert not same_bits(first.predictor, other.predictor)
    drawn = steady(seed=np.random.default_rng(7))
    assert same_bits(first.predictor, drawn.predictor)
    legacy = steady(seed=np.random.RandomState(7))
    assert np.isfinite(legacy.history["loss"]).all()


def test_an_infinite_proximal_weight_is_two_stage():
    found = steady(proximal_weight=np.inf)
    assert found.predictor is found.two_stage and found.history["loss"] == []
    expected = dg.fit(dg.Linear(), HOST, DATA, LeastSquares()).predictor
    assert same_bits(found.predictor, expected)


def test_a_proximal_weight_holds_predictions_near_two_stage():
    moved = []
    for weight in (0.0, 1.0, 10.0):
        found = steady(proximal_weight=weight, epochs=6)
        moved.append(np.abs(found.predictor.weight - found.two_stage.weight).max())
    assert moved[0] > moved[1] > moved[2] > 0


def test_starts_are_the_ones_that_were_asked_for():
    zero = dg.Linear().init(DATA, (("cost", (3,)),))
    assert same_bits(steady(warm_start=False).two_stage, zero)
    other = steady(epochs=3).predictor
    assert same_bits(steady(warm_start=other).two_stage, other)


def test_training_lowers_the_training_regret():
    found = steady(epochs=8, optimizer=None, learning_rate=0.02)
    judged = [dg.evaluate(p, HOST, DATA).mean_regret for p in (found.predictor, found.two_stage)]
    assert 0 <= judged[0] < 0.95 * judged[1]


# ----------------------------------------------------------------------------------- predictions' losses


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_least_squares_is_that_of_scikit_learn(ridge):
    linear = pytest.importorskip("sklearn.linear_model")
    data = samples(30, weights=np.random.default_rng(1).uniform(0.5, 2, 30))
    found = dg.fit(dg.Linear(), HOST, data, LeastSquares(ridge=ridge))
    peer = linear.Ridge(alpha=ridge) if ridge else linear.LinearRegression()
    peer.fit(data.features, data.targets["cost"], sample_weight=data.weights)
    np.testing.assert_allclose(found.predictor.coefficients[0], peer.coef_, atol=1e-9)
    np.testing.assert_allclose(found.predictor.coefficients[1], peer.intercept_, atol=1e-9)
    assert found.solver_calls == 0


def test_mean_squared_error_by_gradient_arrives_at_least_squares():
    found = steady(loss=MSE(), epochs=300, batch_size=24, optimizer=optax.sgd(2.0))
    expected = dg.fit(dg.Linear(), HOST, DATA, LeastSquares()).predictor.coefficients
    np.testing.assert_allclose(found.predictor.coefficients[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found.predictor.coefficients[1], expected[1], atol=1e-6)
    assert found.solver_calls == 0


# -------------------------------------------------------------------------------- predictors of the user


class Shared(eqx.Module):
    """One slope for all costs, and a name that is no array."""

    slope: jax.Array
    label: str = "shared"

    def __call__(self, features):
        return {"cost": 1.0 + self.slope * jnp.array([1.0, -1.0, 0.0]) * features[0]}


def test_any_callable_pytree_is_trained():
    with jax.enable_x64(True):
        start = Shared(jnp.array(0.0))
    found = steady(predictor=start, warm_start=False, epochs=4)
    assert isinstance(found.predictor, Shared) and found.predictor.label == "shared"
    assert float(found.predictor.slope) != 0.0 and found.history["loss"][-1] < found.history["loss"][0]


def test_a_network_starts_from_its_own_two_stage():
    found = steady(predictor=dg.MLP((4,), "tanh"), epochs=3, optimizer=None, learning_rate=0.05)
    untrained = dg.MLP((4,), "tanh").init(DATA, (("cost", (3,)),))
    errors = [dg.evaluate(p, HOST, DATA).summary()["mse"] for p in (found.two_stage, untrained)]
    assert errors[0] < errors[1]
    assert not same_bits(found.two_stage, found.predictor)


# ----------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        (Regret(cost=lambda decisions, parameters: 0.0 * decisions["x"].sum()), ONE_RATE),
        (Regret(), optax.sgd(-0.5)),  # uphill: every candidate is worse
    ],
    ids=["nothing to gain", "uphill"],
)
def test_cross_validation_keeps_two_stage_when_nothing_beats_it(loss, optimizer):
    selection = dg.CrossValidation(folds=2, weights=(0.0, 1.0))
    found = steady(loss=loss, selection=selection, optimizer=optimizer)
    assert found.chosen["proximal_weight"] == np.inf and found.chosen["epochs"] == 0
    assert same_bits(found.predictor, dg.fit(dg.Linear(), HOST, DATA, LeastSquares()).predictor)


def test_cross_validation_refits_what_it_chose_on_all_data():
    data = samples(60, seed=2)
    selection = dg.CrossValidation(folds=3, weights=(0.0,), caution=0.0)
    found = steady(data=data, selection=selection, epochs=4)
    assert found.chosen["proximal_weight"] == 0.0 and 1 <= found.chosen["epochs"] <= 4
    assert found.chosen["gain"] > 0 and len(found.history["loss"]) == found.chosen["epochs"]
    assert not same_bits(found.predictor, found.two_stage)


@pytest.mark.parametrize("ordered", [True, False])
def test_hold_out_returns_the_best_epoch(ordered):
    found = steady(
        selection=dg.HoldOut(0.25, patience=3, ordered=ordered), epochs=12, seed=4, optimizer=optax.sgd(1.5)
    )
    order = np.arange(24) if ordered else np.random.default_rng(4).permutation(24)
    held = DATA.take(order[18:])
    scores = [dg.evaluate(found.two_stage, HOST, held).mean_regret, *found.history["validation"]]
    best = int(np.argmin(scores))
    assert found.chosen["epochs"] == best and len(scores) - 1 <= best + 4
    assert found.chosen["validation"] == pytest.approx(scores[best], abs=1e-12)
    reached = dg.evaluate(found.predictor, HOST, held).mean_regret
    if best:
        assert reached == pytest.approx(scores[best], abs=1e-10)
    else:  # no epoch was better: two-stage, of all data
        assert same_bits(found.predictor, dg.fit(dg.Linear(), HOST, DATA, LeastSquares()).predictor)
    fitted = dg.fit(dg.Linear(), HOST, DATA.take(order[:18]), LeastSquares()).predictor
    np.testing.assert_allclose(found.two_stage.coefficients[0], fitted.coefficients[0], atol=1e-10)


def test_validation_data_are_recorded_and_decide_nothing():
    unseen = samples(9, seed=9)
    found, plain = steady(validation=unseen), steady()
    assert same_bits(found.predictor, plain.predictor)
    assert len(found.history["validation"]) == 2
    expected = dg.evaluate(found.predictor, HOST, unseen).mean_regret
    assert found.history["validation"][-1] == pytest.approx(expected, abs=1e-10)


def test_a_progress_bar_changes_nothing(capsys):
    assert same_bits(steady(progress=True).predictor, steady(progress=False).predictor)


# ---------------------------------------------------------------------------------------------- interruptions


def interrupt(monkeypatch, at: int) -> None:
    """Ctrl-C in the step number `at`, counted from 0."""
    real, count = steps.update, iter(range(at, -1, -1))

    def update(*arguments):
        if next(count, 0) == 0:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(steps, "update", update)


def test_ctrl_c_returns_the_last_complete_epoch(monkeypatch):
    expected = steady(epochs=2)
    interrupt(monkeypatch, at=7)  # three steps an epoch
    found = steady(epochs=9)
    assert found.interrupted and not expected.interrupted
    assert same_bits(found.predictor, expected.predictor)
    assert found.history == expected.history and found.seconds > 0 and found.solver_calls > 0


def test_ctrl_c_in_a_hold_out_returns_the_best_epoch(monkeypatch):
    options = {"selection": dg.HoldOut(0.25, ordered=True), "optimizer": ONE_RATE, "epochs": 3}
    expected = steady(**options)
    interrupt(monkeypatch, at=9)
    found = steady(**{**options, "epochs": 50})
    assert found.interrupted and same_bits(found.predictor, expected.predictor)


def test_ctrl_c_in_cross_validation_returns_two_stage(monkeypatch):
    interrupt(monkeypatch, at=2)
    found = steady(selection=dg.CrossValidation(folds=2))
    assert found.interrupted and found.history["loss"] == []
    assert same_bits(found.predictor, dg.fit(dg.Linear(), HOST, DATA, LeastSquares()).predictor)


# -------------------------------------------------------------------------------------------------- failures


def demand_model() -> dg.Model:
    """At most one unit can be bought, and at least the demand must be: a demand above one is infeasible."""
    m = dg.Model("demand")
    x = m.continuous("x", lb=0.0, ub=1.0)
    m.minimize(x + x * x)
    m.subject_to(x >= m.parameter("demand"), name="demand")
    return m


def shortage(decisions, parameters):
    return decisions["x"] + 8.0 * jnp.maximum(parameters["demand"] - decisions["x"], 0.0) ** 2


SHORTAGE = Regret(cost=shortage)


class Slope(eqx.Module):
    """The demand as a multiple of the feature."""

    slope: jax.Array

    def __call__(self, features):
        return self.slope * features[0]


@pytest.mark.parametrize("solver", ["daqp", "interior-point"])
def test_failed_samples_are_counted_and_touch_nothing_else(solver):
    layer, host = (dg.DecisionLayer(demand_model(), solver=name) for name in (solver, "daqp"))
    features = np.array([0.1, 0.3, 2.0, 0.5, 3.0])[:, None]
    data = dg.Dataset(features, {"demand": np.array([0.2, 0.4, 0.5, 0.6, 0.9])})
    with jax.enable_x64(True):
        start = Slope(jnp.array(1.0))
    options = {"warm_start": False, "batch_size": 5, "epochs": 1, "loss": SHORTAGE, "predictor": start}
    found = steady(layer, data, **options)
    clean = steady(host, data.take([0, 1, 3]), **options)
    assert found.history["failed"] == [2] and clean.history["failed"] == [0]
    assert float(found.predictor.slope) == pytest.approx(float(clean.predictor.slope), abs=1e-9)
    assert float(found.predictor.slope) != 1.0
    assert found.history["loss"] == pytest.approx(clean.history["loss"], abs=1e-9)


def test_an_epoch_of_failures_says_so():
    data = dg.Dataset(np.full((4, 1), 3.0), {"demand": np.full(4, 0.5)})
    with jax.enable_x64(True):
        start = Slope(jnp.array(1.0))
    layer = dg.DecisionLayer(demand_model(), solver="daqp")
    with pytest.raises(SolveError, match="every sample of an epoch failed"):
        steady(layer, data, SHORTAGE, predictor=start, warm_start=False, batch_size=5, epochs=1)


def test_a_loss_that_becomes_nan_says_so():
    loss = Regret(cost=lambda decisions, parameters: decisions["x"].sum() * jnp.nan)
    with pytest.raises(SolveError, match="became NaN"):
        steady(loss=loss)


def test_infeasible_truth_names_the_sample():
    data = dg.Dataset(np.ones((3, 1)), {"demand": np.array([0.5, 0.5, 2.0])})
    with pytest.raises(dg.InfeasibleError, match=r"sample 2"):
        steady(dg.DecisionLayer(demand_model(), solver="daqp"), data, SHORTAGE)


# ---------------------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"selection": "hold-out"}, "selection must be"),
        ({"selection": dg.CrossValidation(folds=13)}, "needs at least 26 samples, got 24"),
        ({"predictor": lambda features: {"cost": features[0] * np.ones(3)}}, "nothing to train"),
        ({"predictor": dg.MLP(), "loss": LeastSquares()}, "needs Linear"),
        ({"layer": dg.DecisionLayer(demand_model(), solver="daqp")}, "enter constraints"),
        ({"data": dg.Dataset(DATA.features, {"price": DATA.targets["cost"]})}, "predicts 'cost'"),
        ({"validation": dg.Dataset(DATA.features, {"price": DATA.targets["cost"]})}, "predicts 'cost'"),
        ({"validation": dg.Dataset(np.ones((9, 5)), {"cost": np.ones((9, 3))})}, r"\(5,\) .*, data \(2,\)"),
        ({"seed": None}, "seed must be"),
        ({"seed": -1}, "seed must be"),
        ({"proximal_weight": -1.0}, "must be ≥ 0"),
        ({"proximal_weight": float("nan")}, "must be ≥ 0"),
        ({"loss": Regret}, "got the class Regret"),
        ({"loss": dg.Method(Regret())}, "got Method"),
        ({"data": LATE, "selection": dg.HoldOut(0.2, ordered=True)}, "HoldOut: all samples held out"),
        ({"data": LATE, "selection": dg.CrossValidation(ordered=True)}, "all samples of fold 4"),
    ],
)
def test_misuse_is_named(change, message):
    options = dict(change)
    if "layer" in options:
        options["data"] = dg.Dataset(DATA.features, {"demand": np.full(24, 0.5)})
    with pytest.raises(ModelError, match=message):
        steady(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dg.CrossValidation(folds=1), "at least 2"),
        (lambda: dg.CrossValidation(weights=()), "≥ 0"),
        (lambda: dg.CrossValidation(weights=(-1.0,)), "≥ 0"),
        (lambda: dg.CrossValidation(weights=(np.inf,)), "must be finite"),
        (lambda: dg.HoldOut(fraction=1.0), "between 0 and 1"),
    ],
)
def test_impossible_selections_are_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make()
