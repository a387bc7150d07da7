"""Synthetic comparisons: decisions are a softmax of predicted costs, methods differ by their noise."""

from collections.abc import Callable

import numpy as np
import pytest

from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.metrics import Evaluation


def decide(cost: np.ndarray) -> np.ndarray:
    x = np.exp(-2 * cost)
    return x / x.sum(axis=1, keepdims=True)


def comparison(noise=None, *, seeds=3, instances=40, n=3, shared=False, failed=0, **rest) -> ComparisonData:
    """The first method is the baseline; a `shared` test set is the same for all seeds."""
    noise = noise or {"two-stage": 0.8, "regret": 0.3, "spo+": 0.5}
    runs: dict[str, list[Run]] = {m: [] for m in noise}
    for seed in range(seeds):
        rng = np.random.default_rng(100 if shared else seed)
        cost = rng.normal(2.0, 1.0, size=(instances, n))
        optimal = decide(cost)
        errors = np.random.default_rng(1000 + seed).normal(size=cost.shape)

        def value(x: np.ndarray, cost: np.ndarray = cost) -> np.ndarray:
            return (cost * x).sum(axis=1) + 0.5 * (x * np.log(x)).sum(axis=1)

        for k, (method, scale) in enumerate(noise.items()):
            x = decide(cost + scale * errors)
            regret = value(x) - value(optimal)
            if k and failed:
                regret[:failed] = np.nan
            epochs = 12 + seed
            history = (
                {"loss": list(np.exp(-np.arange(epochs))), "validation_regret": [0.1] * epochs} if k else {}
            )
            parts = {"cost": cost + scale * errors}, {"cost": cost}, {"x": x}, {"x": optimal}
            judged = Evaluation(method, regret, value(optimal), *parts, seconds=0.1)
            runs[method].append(Run(seed, judged, history, seconds_fit=0.5 + k))
    return ComparisonData(runs, settings={"training samples": 100}, **rest)


@pytest.fixture(scope="session")
def make_comparison() -> Callable[..., ComparisonData]:
    return comparison
