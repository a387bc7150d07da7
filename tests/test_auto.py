"""`fit(..., loss="auto")` and by name: candidates by structure, the same folds, two-stage included."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad.predictors import predict
from decigrad.problems import allocation_model, newsvendor_model, selection_layer, selection_samples
from decigrad.registry import METHODS, named, shortlist
from decigrad.selection import Gains

OPTIONS = {"epochs": 4, "selection": dg.CrossValidation(folds=3), "progress": False}


@pytest.fixture(scope="module")
def layer():
    return selection_layer(8, 3)


@pytest.fixture(scope="module")
def data():
    features, costs, _ = selection_samples(60, items=8, degree=6)
    return dg.Dataset(features, targets={"cost": costs})


def predictions(result, data):
    return predict(result.predictor, data.features, (("cost", (8,)),))["cost"]


def test_the_best_candidate_is_what_fitting_it_alone_gives(layer, data):
    auto = dg.fit(dg.Linear(), layer, data, loss=dg.Auto(("spo+", "map"), caution=0.0), seed=3, **OPTIONS)
    alone = {name: dg.fit(dg.Linear(), layer, data, loss=name, seed=3, **OPTIONS) for name in ("spo+", "map")}
    gain = {name: fit.chosen["gain"] for name, fit in alone.items()}
    assert auto.chosen["gains"] == pytest.approx(gain) and auto.chosen["refused"] == {}
    best = max(gain, key=lambda name: gain[name])
    assert gain[best] > 0 and auto.chosen["method"] == best
    np.testing.assert_allclose(predictions(auto, data), predictions(alone[best], data), rtol=1e-9)
    assert auto.solver_calls > alone[best].solver_calls


def test_two_stage_wins_where_nothing_beats_it(layer):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 2))
    noiseless = dg.Dataset(features, targets={"cost": 5.0 + features @ rng.normal(size=(2, 8))})
    result = dg.fit(dg.Linear(), layer, noiseless, loss="auto", **OPTIONS)
    assert result.chosen["method"] == "two-stage" and set(result.chosen["gains"].values()) == {0.0}
    np.testing.assert_allclose(predictions(result, noiseless), noiseless.targets["cost"], atol=1e-6)


def test_a_budget_of_solver_calls_ends_the_selection(layer, data):
    free = dg.fit(dg.Linear(), layer, data, loss=dg.Auto(("spo+",)), **OPTIONS)
    tight = dg.fit(dg.Linear(), layer, data, loss=dg.Auto(("spo+",), solver_calls=1), **OPTIONS)
    assert tight.chosen["epochs"] <= 1
    assert tight.solver_calls < free.solver_calls


def test_hold_out_keeps_the_candidate_with_the_best_validation(layer, data):
    options = {**OPTIONS, "selection": dg.HoldOut(0.3)}
    auto = dg.fit(dg.Linear(), layer, data, loss=dg.Auto(("spo+", "pfyl")), **options)
    alone = {name: dg.fit(dg.Linear(), layer, data, loss=name, **options) for name in ("spo+", "pfyl")}
    assert auto.chosen["validation"] == min(fit.chosen["validation"] for fit in alone.values())


def test_the_short_list_follows_the_structure(layer):
    assert "spo+" in shortlist(layer)
    assert shortlist(dg.DecisionLayer(allocation_model()))[0] == "regret"
    assert "spo+" not in shortlist(dg.DecisionLayer(newsvendor_model(3)))


def test_a_later_candidate_must_be_clearly_better():
    first, better = (Gains(np.array(g), np.ones(4)) for g in ([1.0, 2.0, 1.0, 2.0], [1.1, 3.0, 0.9, 2.2]))
    difference = np.array([0.1, 1.0, -0.1, 0.2])
    ratio = difference.mean() / (difference.std(ddof=1) / 2.0)
    assert better.beats(first, 0.99 * ratio) and not better.beats(first, 1.01 * ratio)
    assert first.beats(None, 1.0) and first.error == pytest.approx(np.std([1, 2, 1, 2], ddof=1) / 2.0)
    assert not Gains(np.full(4, np.nan), np.ones(4)).beats(None, 0.0)


def test_gains_of_weighted_samples_are_a_ratio():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(2000, 150)) + 1.0, rng.exponential(size=(2000, 150))
    found = [Gains(v, w) for v, w in zip(values, weights, strict=True)]
    assert np.mean([g.error for g in found]) == pytest.approx(np.std([g.mean for g in found]), rel=0.05)
    half = np.repeat([1.0, 0.0], 75)  # without weight a sample is not there
    some, alone = Gains(values[0], half), Gains(values[0, :75], np.ones(75))
    assert some.mean == pytest.approx(alone.mean) and some.error == pytest.approx(alone.error)
    assert Gains(np.ones(150), weights[0]).error == pytest.approx(0.0, abs=1e-12)


def test_candidates_that_do_not_fit_are_passed_over(layer, data):
    tried = dg.Auto(("spo+", "nid"))
    found = dg.fit(dg.Linear(), layer, data, loss=tried, solve_ratio=0.5, **OPTIONS)
    assert list(found.chosen["gains"]) == ["spo+"] and "solve_ratio" in found.chosen["refused"]["nid"]


def test_another_cost_leaves_the_methods_that_train_for_it(layer):
    cost = dg.sum(layer.model.variables["x"] * layer.model.parameters["cost"]) * 2.0
    found = dg.Auto(("spo+", "regret", "sfge"), cost=cost).candidates(layer)
    assert list(found) == ["regret", "sfge"]
    assert all(method.loss.cost is cost for method in found.values())


def test_compare_takes_auto(layer, data):
    compared = dg.compare(layer, data, data, methods=["two-stage", "auto"], seeds=1, epochs=2, progress=False)
    assert compared.results["auto"][0].chosen["method"] in METHODS


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("spo", {}, "no method 'spo'; there are two-stage, mse"),
        (dg.Auto(()), {}, "at least one method"),
        (dg.Auto(("mse", "spo+")), {}, "'mse' minimizes the prediction error"),
        (dg.Auto(("spo+",), cost=lambda x, c: 0.0), {}, r"none of \['spo\+'\] trains for another cost"),
        (dg.Auto(("spo+", "nonsense")), {}, "nonsense"),
        ("auto", {"selection": None}, "needs a selection"),
    ],
)
def test_what_cannot_be_tried_is_refused(layer, data, loss, options, message):
    with pytest.raises(dg.ModelError, match=message):
        dg.fit(dg.Linear(), layer, data, loss=loss, **{**OPTIONS, **options})


def test_names_are_those_of_the_table():
    assert named("spo+").loss == dg.losses.SPOPlus()


def test_integer_programs_of_a_general_solver_train_by_their_relaxation():
    m = dg.Model("knapsack")
    x = m.binary("x", shape=4)
    value = m.parameter("value", shape=4)
    m.maximize(value @ x)
    m.subject_to(np.array([2.0, 3.0, 4.0, 5.0]) @ x <= 6.0)
    assert list(dg.Auto().candidates(dg.DecisionLayer(m))) == ["spo+ relaxed", "pairwise", "map"]
    oracle = dg.DecisionLayer(m, solver=dg.oracles.Knapsack([2, 3, 4, 5], 6))
    assert "spo+ relaxed" not in dg.Auto().candidates(oracle)
