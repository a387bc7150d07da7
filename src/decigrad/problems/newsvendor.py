"""Newsvendor with several products and one budget: how much to order before the demand is known.

    minimize    Σᵢ  holding · max(qᵢ − dᵢ, 0)  +  backorder · max(dᵢ − qᵢ, 0)
    subject to  priceᵀq ≤ budget,  q ≥ 0

The parameter is the demand d, for which one number is predicted. Without a budget the decision is q = d̂,
whatever the costs, so the best prediction is not the mean but the quantile backorder/(backorder + holding) of
the demand: a least squares predictor orders too little where running out is expensive. Decision-focused
training finds the quantile, and what to leave out when the budget binds.

Features φ ~ N(0, I_p), a matrix B of independent Bernoulli(½) entries, and for every product

    d = scale · [ (Bφ/√p + 3)^degree + 1 ] / 3.5^degree · U(1 − noise, 1 + noise)

Draws: B, φ, the noise. There are no published figures for these draws.

Source: Arrow, Harris and Marschak (1951), "Optimal Inventory Policy", Econometrica 19, doi:10.2307/1906813;
learned from features: Ban and Rudin (2019), "The Big Data Newsvendor", Operations Research 67,
doi:10.1287/opre.2018.1757.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.problems._polynomial import polynomial_costs


def newsvendor_model(
    products: int = 5,
    *,
    holding: Any = 1.0,
    backorder: Any = 4.0,
    price: Any = 1.0,
    budget: float | None = None,
) -> dg.Model:
    """The orders for a point forecast: parameter `demand`, variable `order`, [products] each.

    Args:
        products: n.
        holding: cost of a unit too many, one number or [n]; not negative.
        backorder: cost of a unit too few, one number or [n]; not negative.
        price: of a unit ordered, as the budget counts it; one number or [n], not negative.
        budget: None for no limit.
    """
    if products < 1 or (budget is not None and not budget >= 0):
        raise ModelError(f"there must be a product, and a budget of at least 0: got {products}, {budget}")
    holding, backorder, price = (
        _each(name, value, products)
        for name, value in (("holding", holding), ("backorder", backorder), ("price", price))
    )
    m = dg.Model(f"newsvendor of {products} products")
    order = m.continuous("order", shape=products, lb=0.0)
    demand = m.parameter("demand", shape=products)
    over, under = dg.maximum(order - demand, 0.0), dg.maximum(demand - order, 0.0)
    m.minimize(dg.sum(holding * over + backorder * under))
    if budget is not None:
        m.subject_to(price @ order <= float(budget), name="budget")
    return m


def newsvendor_samples(
    n: int,
    seed: int = 42,
    *,
    features: int = 5,
    products: int = 5,
    degree: int = 2,
    noise: float = 0.5,
    scale: float = 10.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features [n, p], demands [n, products], and the expected demands given the features.

    Args:
        n: number of samples.
        seed: of the draws.
        features: p.
        products: how many.
        degree: of the polynomial, at least 1; even ones keep demands positive.
        noise: half-width of the uniform multiplicative noise, 0 ≤ noise < 1.
        scale: factor of all demands.

    >>> x, demands, expected = newsvendor_samples(100, products=3)
    >>> x.shape, demands.shape, bool((demands > 0).all())
    ((100, 5), (100, 3), True)
    """
    x, demands, expected = polynomial_costs(n, seed, products, features, degree, noise)
    return x, scale * demands, scale * expected


def _each(name: str, value: Any, n: int) -> np.ndarray:
    array = np.array(value, np.float64)
    if array.shape not in ((), (n,)):
        raise ModelError(f"{name} must be one number or [{n}], got shape {array.shape}")
    if not (array >= 0).all():
        raise ModelError(f"{name} must not be negative")
    return np.broadcast_to(array, (n,))
