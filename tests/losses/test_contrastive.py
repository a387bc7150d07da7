"""The pool's objectives: one matrix product that equals the objective as it is stated, and its gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decigrad as dg
from decigrad.losses import MAP, NCE, Batch, ListwiseRank, PairwiseRank, PointwiseRank

POOL = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.3, 0.3, 0.4, 0], [0, 0, 0.5, 0.5], [0.25] * 4])


def layer(term: str, sense: str) -> dg.DecisionLayer:
    """min or max of cᵀ(Mx) + d + a known term over the simplex; d is predicted too."""
    m = dg.Model("pool")
    x = m.continuous("x", shape=4, lb=0.0)
    c, d, w = m.parameter("cost", shape=3), m.parameter("offset"), m.parameter("weight", shape=4, known=True)
    sign = 1.0 if sense == "minimize" else -1.0
    linear = dg.sum(c * (np.arange(12.0).reshape(3, 4) % 5 @ x)) + d * (1.0 + x[0])
    known = {
        "diagonal by sample": sign * dg.sum(w * w * x * x),
        "dense": sign * ((x[0] + 2.0 * x[1] - x[3]) ** 2 + dg.sum(x * x)),
        "piecewise": sign * dg.sum(dg.abs(x - 0.3)),
    }[term]
    m.minimize(linear + known) if sense == "minimize" else m.maximize(linear + known)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m)


def stated(layer: dg.DecisionLayer, given: dict[str, Any]) -> np.ndarray:
    """f of each decision of the pool, one evaluation of the stated objective each."""
    return layer.sign * np.stack([layer.objective({"x": x}, given) for x in POOL])


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
@pytest.mark.parametrize("term", ["diagonal by sample", "dense", "piecewise"])
def test_pool_losses_equal_their_definition_on_the_stated_objective(term, sense):
    rng = np.random.default_rng(0)
    made, lead = layer(term, sense), (2, 3)

    def drawn() -> dict[str, Any]:
        return {"cost": rng.normal(size=(*lead, 3)), "offset": rng.normal(size=lead)}

    predicted, true, known = drawn(), drawn(), {"weight": rng.normal(size=(*lead, 4))}
    with jax.enable_x64(True):
        optimal = made.solve({**true, **known})
        batch = Batch(
            np.zeros(lead, int), None, true, known, optimal.x, optimal.objective, np.ones(lead),
            pool={"x": jnp.asarray(POOL)},
        )  # fmt: skip

        def label(given: dict[str, Any]) -> np.ndarray:
            return made.sign * made.objective(optimal.x, given)

        at_hat, at_true = ({**known, **p} for p in (predicted, true))
        f, truth, gap = stated(made, at_hat), stated(made, at_true), label(at_hat)
        tau = 0.5 * truth.std(0)
        p, q = (np.exp(-v / tau) / np.exp(-v / tau).sum(0) for v in (truth, f))
        expected = {
            NCE(): gap - f.mean(0),
            MAP(): ((gap - label(at_true)) - (f - truth)).max(0),
            MAP(margin=False): gap - f.min(0),
            PointwiseRank(): ((f - truth) ** 2).mean(0),
            PairwiseRank(): np.maximum(0, truth - label(at_true) + gap - f).mean(0),
            ListwiseRank(): -tau * (p * np.log(q)).sum(0),
        }
        for loss, value in expected.items():
            found = jax.jit(lambda p, b, loss=loss: loss.value(made, p, {}, b))(predicted, batch)
            np.testing.assert_allclose(found, value, atol=1e-10)

        total = jax.jit(lambda p, b: NCE().value(made, p, {}, b).sum())

        def nce(predicted: Any) -> Any:
            return total(predicted, batch)

        found = jax.grad(nce)({n: jnp.asarray(v) for n, v in predicted.items()})
        for name, value in predicted.items():
            for at in [(0, 1), (1, 2)]:
                step = np.zeros_like(value)
                step[at] = 1e-6
                ends = [nce({**predicted, name: value + s * step}) for s in (1.0, -1.0)]
                slope = float(ends[0] - ends[1]) / 2e-6
                assert float(np.sum(found[name][at])) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
def test_the_margin_sees_the_prediction_alone(sense):
    """ℓ of min cᵀx + kᵀx with k known is (ĉ − c)ᵀ(x* − x) at the best x of the pool, whatever k; 0 at c."""
    m = dg.Model()
    x, c = m.continuous("x", shape=4, lb=0.0), m.parameter("cost", shape=4)
    k = m.parameter("known", shape=4, known=True)
    m.minimize(c @ x + k @ x) if sense == "minimize" else m.maximize(c @ x + k @ x)
    m.subject_to(dg.sum(x) == 1.0)
    made = dg.DecisionLayer(m)
    with jax.enable_x64(True):
        true, predicted, known = np.random.default_rng(1).normal(size=(3, 5, 4))
        optimal = made.solve({"cost": true, "known": known})
        parts = np.zeros(5, int), None, {"cost": true}, {"known": known}, optimal.x, optimal.objective
        batch = Batch(*parts, np.ones(5), pool={"x": jnp.asarray(POOL)})

        def loss(predicted: Any) -> Any:
            return MAP().value(made, {"cost": predicted}, {}, batch)

        gaps = optimal.x["x"][:, None] - POOL
        expected = made.sign * np.einsum("bn,bkn->bk", predicted - true, gaps)
        np.testing.assert_allclose(loss(jnp.asarray(predicted)), expected.max(1), atol=1e-12)
        np.testing.assert_allclose(loss(jnp.asarray(true)), 0.0, atol=1e-12)
