"""Datasets: what they accept, what they refuse and in which words."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

import decigrad as dg
from decigrad.data import Scaling
from decigrad.errors import ModelError

RNG = np.random.default_rng(0)
FEATURES, COSTS = RNG.normal(size=(10, 2)), RNG.normal(size=(10, 3))


def model(known: bool = False) -> dg.Model:
    m = dg.Model("toy")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    total = m.parameter("total", known=True) if known else 1.0
    m.subject_to(dg.sum(x) == total)
    return m


def with_entry(array: np.ndarray, position: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[position] = value
    return changed


# ----------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("frame", [pd.DataFrame, lambda a: pl.DataFrame(a, schema=["a", "b"]), list])
def test_frames_and_lists_are_the_array(frame):
    data = dg.Dataset(frame(FEATURES), {"cost": COSTS})
    np.testing.assert_array_equal(data.features, FEATURES)
    assert data.features.dtype == np.float64 and len(data) == 10


def test_frames_keep_their_column_names_and_serve_as_targets():
    features = pd.DataFrame(FEATURES, columns=["wind", "load"])
    data = dg.Dataset(features, {"cost": pl.DataFrame(COSTS, schema=["a", "b", "c"])})
    assert data.feature_names == ["wind", "load"]
    np.testing.assert_array_equal(data.targets["cost"], COSTS)
    assert data.take([1, 2]).feature_names == ["wind", "load"]


def test_repr_tells_shapes():
    data = dg.Dataset(FEATURES, {"cost": COSTS}, known={"total": np.ones(10)})
    assert repr(data) == "<Dataset of 10 samples: features[2], cost[3], total[]>"


def test_take_and_split_cut_every_part_alike():
    data = dg.Dataset(FEATURES, {"cost": COSTS}, {"total": np.arange(10.0)}, weights=np.arange(1.0, 11))
    for part, rest in (data.split(0.7, seed=3), data.split(0.7, seed=None)):
        assert (len(part), len(rest)) == (7, 3)
        order = np.concatenate([part.known["total"], rest.known["total"]]).astype(int)
        assert sorted(order) == list(range(10))
        np.testing.assert_array_equal(part.features, FEATURES[order[:7]])
        np.testing.assert_array_equal(rest.targets["cost"], COSTS[order[7:]])
        np.testing.assert_array_equal(rest.weights, order[7:] + 1)
    np.testing.assert_array_equal(order, np.arange(10))  # seed=None keeps the order of time
    first, again = data.split(0.5, seed=1)[0], data.split(0.5, seed=1)[0]
    np.testing.assert_array_equal(first.features, again.features)


def test_scaling_uses_the_weights_and_leaves_constants_alone():
    features = np.column_stack([[0.0, 2.0, 100.0], np.full(3, 7.0)])
    data = dg.Dataset(features, {"cost": np.array([1.0, 3.0, -50.0])}, weights=[1.0, 1.0, 0.0])
    scaling = Scaling.of(data, ["cost"])
    np.testing.assert_allclose(scaling.mean, [1.0, 7.0])
    np.testing.assert_allclose(scaling.spread, [1.0, 1.0])
    np.testing.assert_allclose((scaling.shift, scaling.scale), ([2.0], [1.0]))


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.empty((0, 2)), {"cost": np.empty((0, 3))}), "the dataset is empty"),
        ((np.float64(3.0), {"cost": COSTS}), "the dataset is empty"),
        ((FEATURES[:, 0], {"cost": COSTS}), r"must be \[N, p\], got shape \(10,\)"),
        ((FEATURES, {}), "no targets"),
        ((FEATURES, COSTS), "targets must be a dict"),
        ((FEATURES, {"cost": COSTS}, COSTS), "known must be a dict"),
        ((FEATURES, {"cost": COSTS[:9]}), "target 'cost' has 9 rows, features has 10"),
        ((FEATURES, {"cost": 1.0}), "target 'cost' has no rows, features has 10"),
        ((FEATURES, {"cost": COSTS}, {"total": np.ones(4)}), "known 'total' has 4 rows, features has 10"),
        ((with_entry(FEATURES, (4, 1), np.nan), {"cost": COSTS}), r"features: row 4, entry \[1\] is NaN"),
        ((FEATURES, {"cost": with_entry(COSTS, (7, 2), np.inf)}), r"target 'cost': row 7, entry \[2\]"),
        ((FEATURES, {"cost": COSTS}, {"total": [np.nan] * 10}), r"known 'total': row 0.*10 such entries"),
        (([["a", "b"]] * 10, {"cost": COSTS}), "features must be numbers"),
        ((FEATURES, {"cost": COSTS}, {"cost": COSTS}), "both as targets and as known"),
        ((FEATURES, {"cost": COSTS}, None, np.ones(9)), r"weights must be \[10\]"),
        ((FEATURES, {"cost": COSTS}, None, -np.ones(10)), "nonnegative"),
        ((FEATURES, {"cost": COSTS}, None, np.zeros(10)), "not all zero"),
    ],
)
def test_bad_data_are_refused(arguments, message):
    with pytest.raises(ModelError, match=message):
        dg.Dataset(*arguments)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, np.nan])
def test_split_refuses_a_fraction_outside_the_interval(fraction):
    with pytest.raises(ModelError, match="between 0 and 1"):
        dg.Dataset(FEATURES, {"cost": COSTS}).split(fraction)


def test_nothing_is_not_a_dataset():
    data = dg.Dataset(FEATURES, {"cost": COSTS})
    with pytest.raises(ModelError, match="selection of samples is empty"):
        data.take(np.zeros(10, bool))
    with pytest.raises(ModelError, match="at least two samples"):
        data.take([0]).split(0.5)


@pytest.mark.parametrize(
    ("targets", "known", "message"),
    [
        ({"price": COSTS}, {"total": np.ones(10)}, "predicts 'cost', but the dataset has no target"),
        ({"cost": COSTS, "cots": COSTS}, {"total": np.ones(10)}, "cots"),
        ({"cost": COSTS}, {"totla": np.ones(10)}, "totla"),
        ({"cost": COSTS, "total": np.ones(10)}, None, r"\['total'\] are not predicted.*known="),
        ({"cost": COSTS}, None, "known parameter 'total' is neither in the dataset nor has it a value"),
        ({"cost": COSTS[:, :2]}, {"total": np.ones(10)}, r"'cost' has shape \(3,\), got \(2,\) per sample"),
        ({"cost": COSTS}, {"total": np.ones((10, 1))}, r"'total' has shape \(\), got \(1,\) per sample"),
    ],
)
def test_data_that_do_not_fit_the_layer_are_refused(targets, known, message):
    layer = dg.DecisionLayer(model(known=True), solver="daqp")
    with pytest.raises(ModelError, match=message):
        dg.Dataset(FEATURES, targets, known).check(layer)


def test_a_known_parameter_may_have_a_value_instead():
    m = model(known=True)
    m.parameters["total"].value = 1.0
    dg.Dataset(FEATURES, {"cost": COSTS}).check(dg.DecisionLayer(m, solver="daqp"))


def test_optimal_decisions_are_solved_once_for_each_layer_and_parameters():
    from decigrad.problems import selection_layer

    calls = []

    def cheapest(costs):
        calls.append(len(costs))
        return np.eye(3)[costs.argmin(1)]

    layer = dg.DecisionLayer(selection_layer(3, 1).model, solver=dg.Oracle(cheapest))
    costs = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    data = dg.Dataset(np.zeros((2, 1)), targets={"cost": costs})
    first, solved = data.optimal(layer)
    assert solved == 2 and calls == [2]
    again, solved = data.optimal(layer.with_gradient(dg.Perturbed()))
    assert solved == 0 and calls == [2] and again is first
    data.targets["cost"][0] = [5.0, 4.0, 3.0]
    changed, solved = data.optimal(layer)
    assert solved == 2
    np.testing.assert_array_equal(changed.x["x"], [[0, 0, 1], [0, 1, 0]])
    assert data.take([1]).optimal(layer)[1] == 1


def test_a_failure_that_is_remembered_is_still_raised():
    from decigrad.problems import selection_layer

    layer = dg.DecisionLayer(
        selection_layer(3, 1).model, solver=dg.Oracle(lambda costs: np.full(costs.shape, 2.0))
    )
    data = dg.Dataset(np.zeros((2, 1)), targets={"cost": np.ones((2, 3))})
    assert data.optimal(layer)[0].failed.tolist() == [0, 1]
    with pytest.raises(dg.SolveError, match="sample 0"):
        data.optimal(layer, throw=True)
