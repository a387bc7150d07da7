"""How the studies train for decisions: validated on the latest training data, never on the future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.evaluation.statistics import mean_and_error

CAUTION = 0.5
"""Standard errors of the paired difference by which a candidate must beat two-stage in validation."""


@dataclass(frozen=True)
class DecisionTraining:
    """Training from two-stage on, held near it by a proximal weight that is chosen in the order of time.

    The first 80 % of the training data are fitted by two-stage and trained with each of `weights`; the last
    20 % choose among them and two-stage itself (an infinite weight). What was chosen is then repeated on all
    training data, so that nothing is given up to validation.
    """

    weights: tuple[float, ...]
    epochs: int
    learning_rate: float
    share: float = 0.8

    def __call__(
        self, two_stage: Callable[[dg.Dataset], Any], layer: dg.DecisionLayer, data: dg.Dataset, seed: int
    ) -> tuple[Any, float]:
        """The trained predictor and the weight that was chosen for it."""
        early, late = data.split(self.share, seed=None)
        start = two_stage(early)
        reference = dg.evaluate(start, layer, late).regret
        chosen, best = np.inf, 1e-12  # a gain that is a rounding error is none
        for weight in self.weights:
            trained = self._trained(start, layer, early, seed, weight)
            gain = mean_and_error(reference - dg.evaluate(trained, layer, late).regret)
            if gain.mean > max(best, CAUTION * gain.error):
                chosen, best = weight, gain.mean
        start = two_stage(data)
        if np.isinf(chosen):
            return start, chosen
        return self._trained(start, layer, data, seed, chosen), chosen

    def _trained(
        self, start: Any, layer: dg.DecisionLayer, data: dg.Dataset, seed: int, weight: float
    ) -> Any:
        result = dg.fit(
            start,
            layer,
            data,
            dg.losses.Regret(),
            seed=seed,
            selection=None,
            warm_start=False,
            proximal_weight=weight,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
        )
        return result.predictor


def weight_text(weight: float) -> str:
    """How a chosen proximal weight is shown."""
    return "two-stage" if np.isinf(weight) else f"{weight:g}"
