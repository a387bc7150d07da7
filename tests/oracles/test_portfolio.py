"""Portfolios of limited risk against a conic solver, closed forms and their optimality conditions."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from oracles.reference import answer

from decigrad.errors import ModelError
from decigrad.oracles import Portfolio


def covariance(rng: np.random.Generator, n: int) -> np.ndarray:
    loadings = rng.standard_normal((n, 2))
    return 1e-4 * (0.3 * loadings @ loadings.T + np.diag(rng.uniform(0.5, 2.0, n)))


def variance(x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return np.einsum("bi,ij,bj->b", x, sigma, x)


@pytest.mark.parametrize("n", [2, 6, 20])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.05, 3.0])
def test_portfolios_are_optimal(n, share):
    """The conditions of Karush, Kuhn and Tucker with a multiplier of the risk, which are sufficient."""
    rng = np.random.default_rng(n)
    sigma = covariance(rng, n)
    risk = share * sigma.mean()
    cost = -rng.standard_normal((60, n)) * rng.choice([1e-3, 1.0, 1e3], (60, 1))
    x = answer(Portfolio(sigma, risk), cost)
    assert (x >= 0).all()
    assert (x.sum(axis=1) <= 1 + 1e-12).all()
    used = variance(x, sigma)
    assert (used <= risk * (1 + 1e-12)).all()
    for c, held, v in zip(cost, x, used, strict=True):
        size, gradient, inside = abs(c).max(), sigma @ held, held > 1e-12
        if not inside.any():
            assert (c >= 0).all()
            continue
        # c + mu·gradient + nu − w = 0: least squares in the multipliers over what is held
        binds = [v > risk * (1 - 1e-10), held.sum() > 1 - 1e-12]
        columns = np.stack([gradient / abs(gradient).max(), np.ones(n)], axis=1) * binds
        multipliers = np.linalg.lstsq(columns[inside], -c[inside], rcond=None)[0]
        slack = c + columns @ multipliers
        assert (multipliers >= -1e-9 * size).all()
        np.testing.assert_allclose(slack[inside], 0.0, atol=1e-9 * size)
        assert (slack >= -1e-9 * size).all()


@pytest.mark.parametrize("share", [0.3, 1.5, 4.0])
def test_portfolios_agree_with_a_conic_solver(share):
    rng = np.random.default_rng(0)
    sigma = covariance(rng, 10)
    risk = share * sigma.mean()
    cost = -0.3 - rng.standard_normal((8, 10))
    x, c = cp.Variable(10, nonneg=True), cp.Parameter(10)
    limited = cp.quad_form(x, cp.psd_wrap(sigma / risk)) <= 1.0
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x) <= 1, limited])
    for one, found in zip(cost, answer(Portfolio(sigma, risk), cost), strict=True):
        c.value = one
        problem.solve(solver=cp.CLARABEL)
        assert one @ found == pytest.approx(problem.value, abs=1e-7)
        np.testing.assert_allclose(found, x.value, atol=1e-3)


def test_uncorrelated_assets_have_a_closed_form():
    """min cᵀx with Σ = I, all c < 0 and a budget that does not bind: x = √risk · (−c)/‖c‖."""
    cost = -np.random.default_rng(0).uniform(0.5, 1.5, (20, 4))
    expected = 0.3 * -cost / np.linalg.norm(cost, axis=1, keepdims=True)
    np.testing.assert_allclose(answer(Portfolio(np.eye(4), 0.09), cost), expected, atol=1e-12)


def test_the_best_asset_is_held_alone_where_risk_does_not_bind():
    cost = np.array([[-1.0, -3.0, -2.0], [1.0, 2.0, 3.0], [-1e-9, 1.0, 1.0], [0.0, 0.0, 0.0]])
    expected = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(answer(Portfolio(np.eye(3), 1.5), cost), expected, atol=1e-12)
    tied = answer(Portfolio(np.diag([1.0, 1.0, 3.0]), 1.5), np.array([[-1.0, -1.0, -1.0]]))
    np.testing.assert_allclose(tied, [[3 / 7, 3 / 7, 1 / 7]], atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "risk", "message"),
    [
        (np.ones((2, 3)), 1.0, "symmetric"),
        ([[1.0, 0.5], [0.4, 1.0]], 1.0, "symmetric"),
        (np.ones((2, 2)), 1.0, "positive definite"),
        (np.eye(2), 0.0, "risk must be positive"),
        (np.eye(2), np.nan, "risk"),
    ],
)
def test_misuse_is_named(sigma, risk, message):
    with pytest.raises(ModelError, match=message):
        Portfolio(sigma, risk)
