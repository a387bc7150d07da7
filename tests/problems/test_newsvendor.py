"""Orders are those of a greedy rule, and follow the demand."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad import problems
from decigrad.errors import ModelError


def test_newsvendors_order_the_forecast_unless_the_budget_binds():
    _, demands, _ = problems.newsvendor_samples(20, products=4)
    free = dg.DecisionLayer(problems.newsvendor_model(4)).solve({"demand": demands})
    np.testing.assert_allclose(free.x["order"], demands, atol=1e-7)

    holding, backorder, price = [1.0, 1.0, 2.0, 1.0], [4.0, 9.0, 2.0, 3.0], [1.0, 3.0, 0.5, 2.0]
    budget = 25.0
    model = problems.newsvendor_model(4, holding=holding, backorder=backorder, price=price, budget=budget)
    found = dg.DecisionLayer(model).solve({"demand": demands})
    for k, demand in enumerate(demands):
        left, order = budget, np.zeros(4)
        for i in np.argsort(-np.array(backorder) / price):  # most saved for each unit of the budget first
            order[i] = min(demand[i], left / price[i])
            left -= order[i] * price[i]
        np.testing.assert_allclose(found.x["order"][k], order, atol=1e-6)
        np.testing.assert_allclose(found.objective[k], np.dot(backorder, demand - order))


def test_orders_follow_the_demand():
    """The derivative of an order in its own demand is 1 where the budget is slack."""
    layer = dg.DecisionLayer(problems.newsvendor_model(3))
    slope = jax.jacrev(lambda d: layer({"demand": d})["order"])(np.array([2.0, 5.0, 9.0]))
    np.testing.assert_allclose(slope, np.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [{"products": 0}, {"budget": -1.0}, {"holding": -1.0}, {"backorder": [1.0, 2.0]}, {"price": np.nan}],
)
def test_senseless_newsvendors_are_refused(bad):
    with pytest.raises(ModelError):
        problems.newsvendor_model(**bad)


def test_training_on_regret_finds_the_critical_quantile():
    """Without information in the features the best order is the quantile backorder/(backorder + holding)."""
    demand = np.random.default_rng(0).gamma(2.0, 5.0, size=(400, 1))
    data = dg.Dataset(np.zeros((400, 1)), targets={"demand": demand})
    layer = dg.DecisionLayer(problems.newsvendor_model(1, holding=1.0, backorder=4.0))
    options = {"selection": None, "epochs": 40, "learning_rate": 0.02, "batch_size": 50, "progress": False}
    found = dg.fit(dg.Linear(), layer, data, dg.losses.Regret(), averaging=True, **options)
    order = dg.evaluate(found.predictor, layer, data).decisions["order"][0]

    def cost(order):
        return np.maximum(order - demand, 0.0).mean() + 4.0 * np.maximum(demand - order, 0.0).mean()

    best = cost(np.quantile(demand, 0.8))
    assert cost(order) == pytest.approx(best, rel=0.005)
    assert cost(demand.mean()) > 1.1 * best  # two-stage


def test_regret_is_refused_where_the_demand_enters_a_stated_constraint():
    model = problems.newsvendor_model(2)
    model.subject_to(model.variables["order"] <= 2.0 * model.parameters["demand"])
    with pytest.raises(ModelError, match=r"\['demand'\] enter constraints"):
        dg.losses.Regret().check(dg.DecisionLayer(model))
