"""The tutorial's draws to the last bit, and its models against closed forms and CVXPY."""

import numpy as np
import pytest

from decigrad.problems import allocation

# Figures printed by the tutorial: first training cost, cost range, spread, least squares weights.
PRINTED_WEIGHTS = [
    [0.45, -0.05, -0.2, -0.2, -0.38],
    [0.04, 0.32, -0.57, 0.22, -0.61],
    [-0.31, 0.06, 0.0, -0.38, -0.17],
]


def test_draws_match_the_global_generator_bit_for_bit():
    state = np.random.RandomState(42)
    phi = state.randn(30, 5)
    noise = state.randn(30, 3)
    costs = phi @ allocation.ALLOCATION_WEIGHTS.T
    costs[:, 0] += 0.4 * phi[:, 0] * phi[:, 1]
    costs[:, 1] += 0.4 * phi[:, 2] * phi[:, 3]
    costs[:, 2] += 0.4 * phi[:, 0] * phi[:, 4]
    costs += 0.15 * noise
    costs = costs - costs.mean(axis=1, keepdims=True) + 1.0
    draws = allocation.tutorial_draws()
    np.testing.assert_array_equal(draws.train[0], phi)
    np.testing.assert_array_equal(draws.train[1], costs)


def test_printed_figures_of_the_allocation():
    draws = allocation.tutorial_draws()
    features, costs = draws.train
    assert costs[0].round(3).tolist() == [1.01, 1.742, 0.248]
    assert (round(costs.min(), 2), round(costs.max(), 2)) == (-0.70, 2.26)
    assert round((costs.max(1) - costs.min(1)).mean(), 2) == 1.14
    theta = np.linalg.lstsq(features, costs, rcond=None)[0].T
    np.testing.assert_allclose(theta.round(2), PRINTED_WEIGHTS, atol=1e-12)
    assert f"{np.mean((features @ theta.T - costs) ** 2):.4f}" == "0.8664"
    test_features, test_costs = draws.test
    assert f"{np.mean((test_features @ theta.T - test_costs) ** 2):.4f}" == "1.4504"
    assert test_costs[0].round(3).tolist() == [0.464, 1.578, 0.957]


def test_printed_figures_of_the_portfolio():
    draws = allocation.tutorial_draws()
    theta = np.linalg.lstsq(*draws.returns_train, rcond=None)[0].T
    features, returns = draws.returns_test
    assert f"{np.mean((features @ theta.T - returns) ** 2):.4f}" == "0.3842"


def test_orders_are_permutations_and_seeds_differ():
    draws = allocation.tutorial_draws(7, n_train=12, n_test=3, epochs=4)
    assert draws.orders.shape == draws.returns_orders.shape == (4, 12)
    np.testing.assert_array_equal(np.sort(draws.orders, axis=1), np.tile(np.arange(12), (4, 1)))
    assert not np.array_equal(draws.train[0], allocation.tutorial_draws(8, n_train=12).train[0])
    np.testing.assert_array_equal(draws.train[0], allocation.allocation_samples(12, 7)[0])


def test_a_seed_and_its_generator_agree():
    from_seed = allocation.returns_samples(5, 3)
    from_state = allocation.returns_samples(5, np.random.RandomState(3))
    np.testing.assert_array_equal(from_seed[1], from_state[1])


@pytest.mark.parametrize("build", [allocation.allocation_model, allocation.returns_model])
def test_models_refuse_no_curvature(build):
    with pytest.raises(ValueError, match="must be positive, got 0"):
        build(0.0)


def test_samples_refuse_no_samples():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        allocation.allocation_samples(0)


def test_allocation_model_solves_the_printed_instances():
    solution = allocation.allocation_model().solve({"cost": [0.8, 1.0, 1.2]})
    np.testing.assert_allclose(solution.x["x"], [13 / 30, 1 / 3, 7 / 30], atol=1e-9)
    assert abs(solution.objective - 1.3133333333333335) < 1e-9
    draws = allocation.tutorial_draws()
    solution = allocation.allocation_model().solve({"cost": draws.test[1][0]})
    assert np.round(solution.x["x"], 4).tolist() == [0.6012, 0.0441, 0.3547]
    assert round(float(solution.objective), 4) == 1.1775


def test_portfolio_model_reaches_the_printed_oracle():
    model = allocation.returns_model()
    utilities = [
        -float(model.solve({"returns": r}).objective) for r in allocation.tutorial_draws().returns_test[1]
    ]
    assert f"{np.mean(utilities):.4f}" == "-0.4688"
