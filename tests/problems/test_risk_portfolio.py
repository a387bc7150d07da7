"""The portfolio of Elmachtoub and Grigas: moments of the draws, published regret, what may be trained."""

from __future__ import annotations

import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems import (
    risk_limit,
    risk_portfolio_covariance,
    risk_portfolio_layer,
    risk_portfolio_samples,
)
from decigrad.problems.risk_portfolio import PUBLISHED


def test_returns_have_the_stated_moments():
    x, returns, expected = risk_portfolio_samples(40_000, seed=3, assets=4, factors=2, noise=2.0)
    sigma = risk_portfolio_covariance(3, assets=4, factors=2, noise=2.0)
    np.testing.assert_allclose(np.cov((returns - expected).T), sigma, atol=1e-5)
    np.testing.assert_allclose((returns - expected).mean(axis=0), 0.0, atol=5e-4)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=0.03)
    # at degree 1 the mean is 0.05 (Bφ)/√p + 0.1, so coefficients are 0 or 0.05/√p
    x, _, line = risk_portfolio_samples(50, assets=6, degree=1)
    slope = np.linalg.lstsq(x, line - 0.1, rcond=None)[0] * np.sqrt(5) / 0.05
    np.testing.assert_allclose(slope, np.round(slope), atol=1e-9)
    assert set(np.round(slope).ravel().tolist()) == {0.0, 1.0}


def test_the_limit_is_that_of_equal_weights():
    sigma, equal = risk_portfolio_covariance(), np.full(50, 1 / 50)
    assert risk_limit(sigma) == pytest.approx(2.25 * equal @ sigma @ equal, rel=1e-12)


@pytest.mark.parametrize("degree", [1, 16])
def test_least_squares_has_the_published_regret(degree):
    regrets = []
    for seed in range(3):
        x, returns, _ = risk_portfolio_samples(1400, seed, degree=degree)
        data = dg.Dataset(x, {"returns": returns})
        train, test = data.take(np.arange(1000)), data.take(np.arange(1000, 1400))
        layer = risk_portfolio_layer(risk_portfolio_covariance(seed))
        found = dg.fit(dg.Linear(), layer, train, dg.losses.LeastSquares(), progress=False)
        regrets.append(100 * dg.evaluate(found.predictor, layer, test).normalized_regret)
    published = PUBLISHED["two-stage"][degree]
    assert np.mean(regrets) == pytest.approx(published, rel=0.25)


def test_spo_plus_beats_least_squares_where_the_line_is_wrong():
    x, returns, _ = risk_portfolio_samples(600, degree=16, assets=20)
    data = dg.Dataset(x, {"returns": returns})
    train, test = data.take(np.arange(200)), data.take(np.arange(200, 600))
    layer = risk_portfolio_layer(risk_portfolio_covariance(assets=20))
    options = {"selection": None, "epochs": 8, "progress": False}
    found = dg.fit(dg.Linear(), layer, train, dg.losses.SPOPlus(), **options)
    regret = [dg.evaluate(p, layer, test).mean_regret for p in (found.predictor, found.two_stage)]
    assert regret[0] < 0.8 * regret[1]
    with pytest.raises(ModelError, match="no derivative of 'returns', which enters the cost"):
        dg.fit(dg.Linear(), layer, train, **options)


def test_impossible_sizes_are_refused():
    with pytest.raises(ModelError, match="assets and factors must be positive"):
        risk_portfolio_samples(5, assets=0)
    with pytest.raises(ModelError, match="noise not negative"):
        risk_portfolio_covariance(noise=-1.0)
