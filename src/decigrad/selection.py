"""How `fit` chooses: the selections, what they compare by, and what is returned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.errors import ModelError


@dataclass(frozen=True)
class CrossValidation:
    """Choose the proximal weight and the number of epochs by k-fold cross-validation, then refit on all data.

    Training minimizes, from the two-stage predictor ĉ₀ on,

        mean loss + weight · L₀ · mean ‖(ĉ − ĉ₀)/σ‖²/m

    with L₀ the two-stage training loss and σ the targets' standard deviations, so that a weight has no
    unit. An infinite weight is two-stage itself, always a candidate. A challenger replaces it only if its
    held-out gain exceeds `caution` standard errors of the paired difference.

    Args:
        folds: number of folds.
        weights: proximal weights to try; by default .1, 1, 10 for an exact derivative, and 0, .1, 1 for
            surrogates and estimates, which are less prone to fit the noise in the data.
        caution: standard errors by which a candidate must beat two-stage.
        ordered: folds are blocks that follow each other in the order of the data's times (of the rows, where
            there are none) instead of random; by default where the data have times.

    Groups of the data are never divided: they are dealt to the folds as by `group_folds`, and in order stand
    where their first sample does. Samples of one time stay together in blocks.
    """

    folds: int = 5
    weights: tuple[float, ...] | None = None
    caution: float = 0.5
    ordered: bool | None = None

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ModelError(f"CrossValidation: folds must be at least 2, got {self.folds}")
        if self.weights is not None and (not self.weights or any(not w >= 0 for w in self.weights)):
            raise ModelError(f"CrossValidation: weights must be ≥ 0, got {self.weights}")
        if self.weights is not None and not np.isfinite(self.weights).any():
            raise ModelError("CrossValidation: one weight must be finite; two-stage is always a candidate")


@dataclass(frozen=True)
class HoldOut:
    """Train on a part of the data and stop early by the loss on the rest; the best epoch is returned, or
    two-stage on all data where no epoch was better.

    Args:
        fraction: share of the samples held out; as near as whole groups get, where the data have groups.
        patience: epochs without improvement after which training stops.
        ordered: hold out the last samples in time (of the rows, where there are no times) instead of random
            ones; by default where the data have times.
    """

    fraction: float = 0.2
    patience: int = 20
    ordered: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ModelError(f"HoldOut: fraction must lie between 0 and 1, got {self.fraction}")
        if self.patience < 1:
            raise ModelError(f"HoldOut: patience must be at least 1, got {self.patience}")


@dataclass
class FitResult:
    """What `fit` returns.

    Attributes:
        predictor: the trained predictor, a callable pytree.
        two_stage: the predictor that training started from.
        history: by epoch of the final training: "loss", "failed" (samples without a decision), "solver_calls"
            (programs solved, those of a judgement included) and "validation": the loss on `validation` data,
            or on what `HoldOut` held out.
        chosen: proximal weight and epochs that were chosen, and the scores behind the choice; of `Auto` also
            the "method", by candidate the held-out "gains" over two-stage, and what was "refused" and why.
        seconds: wall time in all, before a resume too.
        solver_calls: programs solved.
        failures: samples whose decision failed at least once in a step or when judged, by position in the
            data, with the name of the `Status`. They took no part in the step; when judged they count as the
            worst.
        saved_calls: programs that `solve_ratio` left unsolved.
        epoch_seconds: wall time of each epoch of the final training; the first may hold a compilation.
        interrupted: Ctrl-C ended the training; the predictor is the best so far: that of the last complete
            epoch, of the best one with `HoldOut`, two-stage during cross-validation. With a checkpoint, the
            same `fit` goes on from there.
    """

    predictor: Any
    two_stage: Any
    history: dict[str, list[float]]
    chosen: dict[str, Any]
    seconds: float
    solver_calls: int
    interrupted: bool = False
    failures: dict[int, str] = field(default_factory=dict)
    saved_calls: int = 0
    epoch_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Gains:
    """Held-out loss of two-stage minus that of a candidate, [N], with the samples' weights [N]."""

    values: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(parts: list[tuple[np.ndarray, np.ndarray]]) -> Gains:
        """From (differences, weights) of each held-out part."""
        values, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Gains(values, weights)

    @property
    def mean(self) -> float:
        """The mean gain Σwv/Σw."""
        return float(np.average(self.values, weights=self.weights))

    @property
    def error(self) -> float:
        """Its standard error √(n/(n−1) Σw²(v − mean)²)/Σw, that of a ratio; n counts positive weights."""
        n, spread = np.count_nonzero(self.weights), self.weights * (self.values - self.mean)
        return float(np.sqrt(n / (n - 1) * (spread**2).sum()) / self.weights.sum()) if n > 1 else 0.0

    def cautious(self, caution: float) -> float:
        """The mean gain less so many standard errors."""
        return self.mean - caution * self.error

    def beats(self, other: Gains | None, caution: float) -> bool:
        """Whether it is above the other, on the same samples, by `caution` standard errors."""
        difference = self if other is None else Gains(self.values - other.values, self.weights)
        return difference.cautious(caution) > 0
