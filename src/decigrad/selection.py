"""One training from two-stage to the predictor that is returned: selection, then the final training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.data import Dataset
from decigrad.errors import ModelError, SolveError
from decigrad.losses import MSE, LeastSquares
from decigrad.predictors import LinearPredictor, initialized, least_squares, outputs_of
from decigrad.progress import Progress
from decigrad.regressors import Regressor, is_regressor, taught
from decigrad.trainer import Lanes, Trainer


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
        ordered: folds are contiguous blocks (time series) instead of random.
    """

    folds: int = 5
    weights: tuple[float, ...] | None = None
    caution: float = 0.5
    ordered: bool = False

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ModelError(f"CrossValidation: folds must be at least 2, got {self.folds}")
        if self.weights is not None and (not self.weights or any(not w >= 0 for w in self.weights)):
            raise ModelError(f"CrossValidation: weights must be ≥ 0, got {self.weights}")


@dataclass(frozen=True)
class HoldOut:
    """Train on a part of the data and stop early by the loss on the rest; the best epoch is returned, or
    two-stage on all data where no epoch was better.

    Args:
        fraction: share of the samples held out.
        patience: epochs without improvement after which training stops.
        ordered: hold out the last samples (time series) instead of random ones.
    """

    fraction: float = 0.2
    patience: int = 20
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ModelError(f"HoldOut: fraction must lie between 0 and 1, got {self.fraction}")


@dataclass
class FitResult:
    """What `fit` returns.

    Attributes:
        predictor: the trained predictor, a callable pytree.
        two_stage: the predictor that training started from.
        history: by epoch of the final training: "loss", "failed" (samples without a decision) and
            "validation": the loss on `validation` data, or on what `HoldOut` held out.
        chosen: proximal weight and epochs that were chosen, and the scores behind the choice; of `Auto` also
            the "method", by candidate the held-out "gains" over two-stage, and what was "refused" and why.
        seconds: wall time in all.
        solver_calls: programs solved.
        failures: samples whose decision failed at least once in a step or when judged, by position in the
            data, with the name of the `Status`. They took no part in the step; when judged they count as the
            worst.
        saved_calls: programs that `solve_ratio` left unsolved.
        epoch_seconds: wall time of each epoch of the final training; the first may hold a compilation.
        interrupted: Ctrl-C ended the training; the predictor is the best so far: that of the last complete
            epoch, of the best one with `HoldOut`, two-stage during cross-validation.
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


class Run:
    """One `fit`: two-stage, selection, final training. Remembers the best so far for Ctrl-C."""

    def __init__(
        self,
        trainer: Trainer,
        rng: Any,
        epochs: int,
        bar: Progress,
        validation: Dataset | None,
        limit: float = np.inf,
    ) -> None:
        self.trainer, self.rng, self.epochs, self.bar, self.limit = trainer, rng, epochs, bar, limit
        self.rounds = 0 if trainer.idle else epochs  # an exact derivative of zero moves nothing
        self.epoch_seconds: list[float] = []
        self.gains: Gains | None = None
        """Held-out gains over two-stage of what was selected; None where two-stage is kept."""
        self.finish: Callable[[], FitResult]
        """The final training."""
        self.validation = None if validation is None else trainer.like(validation)
        self.history: dict[str, list[float]] = {"loss": [], "failed": []}
        self.best: Any = None
        self.anchor: Any = None
        self.others: list[Trainer] = [trainer] + ([self.validation] if self.validation else [])

    @property
    def calls(self) -> int:
        return sum(t.calls for t in self.others)

    def select(self, selection: Any, start: Any, proximal_weight: float, warm_start: Any) -> None:
        """Two-stage, and what `selection` finds out: all but the final training."""
        everything = np.arange(len(self.trainer.data))
        self.finish = lambda: self._final(proximal_weight, self.rounds, {"proximal_weight": proximal_weight})
        if isinstance(self.trainer.loss, LeastSquares):
            found = self._closed_form(start, self.trainer.data)
            self.finish = lambda: FitResult(found, found, {}, {"method": "closed form"}, 0.0, 0)
        elif isinstance(selection, HoldOut):
            result = self._hold_out(selection, start, warm_start)
            self.finish = lambda: result
        else:
            self.anchor = self._two_stage(start, [everything], warm_start)[0]
            if selection is not None:
                self.best = self.anchor
                chosen = self._cross_validate(selection, start, warm_start)
                self.finish = lambda: self._final(chosen["proximal_weight"], chosen["epochs"], chosen)

    def rescued(self) -> FitResult:
        """The best predictor at hand when the user interrupts."""
        if self.anchor is None:
            raise KeyboardInterrupt
        best = self.anchor if self.best is None else self.best
        return FitResult(best, self.anchor, self.history, {"interrupted": True}, 0.0, 0, interrupted=True)

    def _closed_form(self, start: Any, data: Dataset) -> LinearPredictor:
        if not isinstance(start, LinearPredictor):
            raise ModelError("LeastSquares in closed form needs Linear(); use MSE() for other predictors")
        ridge = self.trainer.loss.ridge if isinstance(self.trainer.loss, LeastSquares) else 0.0
        return least_squares(start, data, ridge=ridge)

    def _two_stage(self, start: Any, parts: list[np.ndarray], warm_start: Any) -> list[Any]:
        """The two-stage predictor of each part of the data (or the start given in its place)."""
        if warm_start is False or not self.trainer.loss.decides:
            return [start] * len(parts)
        data = self.trainer.data
        if isinstance(warm_start, Regressor) or is_regressor(warm_start):
            outputs = outputs_of(self.trainer.layer)
            return [self._learned(start, taught(warm_start, data, p, outputs), [p])[0] for p in parts]
        if warm_start is not True:
            return [initialized(warm_start, self.trainer.layer, data, 0)] * len(parts)
        return self._learned(start, data, parts)

    def _learned(self, start: Any, data: Dataset, parts: list[np.ndarray]) -> list[Any]:
        """Least squares on each part of the data: in closed form where there is one, else by gradient."""
        if isinstance(start, LinearPredictor):
            return [self._closed_form(start, data.take(part)) for part in parts]
        trainer = self.trainer
        twin = Trainer(start, trainer.layer, MSE(), data, trainer.optimizer, trainer.batch_size)
        lanes = twin.lanes([start] * len(parts), parts, np.zeros(len(parts)), np.zeros(len(parts)))
        rng = np.random.default_rng(0)
        for _ in self.bar.track(range(self.epochs), "two-stage"):
            twin.epoch(lanes, rng)
        return [twin.predictor(lanes, i) for i in range(len(parts))]

    def _final(self, weight: float, epochs: int, chosen: dict[str, Any]) -> FitResult:
        trainer, everything = self.trainer, np.arange(len(self.trainer.data))
        self.best = self.anchor
        if np.isinf(weight) or epochs == 0:
            return FitResult(self.anchor, self.anchor, self.history, chosen, 0.0, 0)
        first = trainer.lanes([self.anchor], [everything], np.zeros(1), np.zeros(1))
        unit = trainer.judge(first, [everything]).mean if weight > 0 else np.zeros(1)
        lanes = trainer.lanes([self.anchor], [everything], np.array([weight]), unit)
        for _ in self.bar.track(range(epochs), "training"):
            self._epoch(lanes)
            self._validate(lanes)
            self.best = trainer.predictor(lanes, 0)
        return FitResult(self.best, self.anchor, self.history, chosen, 0.0, 0)

    def _epoch(self, lanes: Lanes) -> None:
        """One epoch of a single lane, recorded and timed."""
        began = time.perf_counter()
        loss, failed = self.trainer.epoch(lanes, self.rng)
        self.epoch_seconds.append(time.perf_counter() - began)
        self.history["loss"].append(float(loss[0]))
        self.history["failed"].append(int(failed[0]))

    def _validate(self, lanes: Lanes, held_out: float | None = None) -> None:
        """Record the loss on other data where some were given, else what was held out; show the progress."""
        if self.validation is not None:
            score = self.validation.judge(lanes, [np.arange(len(self.validation.data))])
            held_out = float(score.mean[0])
        if held_out is not None:
            self.history.setdefault("validation", []).append(held_out)
        self.bar.show(**{k: v[-1] for k, v in self.history.items()})

    def _hold_out(self, how: HoldOut, start: Any, warm_start: Any) -> FitResult:
        trainer, n = self.trainer, len(self.trainer.data)
        held = min(max(round(how.fraction * n), 1), n - 1)
        if n < 2:
            raise ModelError("HoldOut needs at least two samples")
        order = np.arange(n) if how.ordered else self.rng.permutation(n)
        train, test = order[: n - held], order[n - held :]
        self.anchor = self._two_stage(start, [train], warm_start)[0]
        lanes = trainer.lanes([self.anchor], [train], np.zeros(1), np.zeros(1))
        before = trainer.judge(lanes, [test])
        best, since, at, self.best = float(before.mean[0]), 0, 0, None
        for epoch in self.bar.track(range(self.rounds), "training"):
            self._epoch(lanes)
            judged = trainer.judge(lanes, [test])
            score = float(judged.mean[0])
            self._validate(lanes, score)
            since += 1
            if score < best:
                best, since, at, self.best = score, 0, epoch + 1, trainer.predictor(lanes, 0)
                self.gains = Gains.of([(before.values[0] - judged.values[0], judged.weights[0])])
            if since > how.patience or self.calls >= self.limit:
                break
        if self.best is None:  # two-stage it is: on all data
            self.best = self._two_stage(start, [np.arange(n)], warm_start)[0]
        return FitResult(self.best, self.anchor, self.history, {"epochs": at, "validation": best}, 0.0, 0)

    def _cross_validate(self, how: CrossValidation, start: Any, warm_start: Any) -> dict[str, Any]:
        """Proximal weight and number of epochs with the best held-out loss, two-stage included."""
        trainer, n = self.trainer, len(self.trainer.data)
        if n < 2 * how.folds:
            raise ModelError(
                f"CrossValidation with {how.folds} folds needs at least {2 * how.folds} samples, got {n}"
            )
        order = np.arange(n) if how.ordered else self.rng.permutation(n)
        held = np.array_split(order, how.folds)
        kept = [np.setdiff1d(order, part, assume_unique=True) for part in held]
        anchors = self._two_stage(start, kept, warm_start)
        tried = how.weights or ((0.0, 0.1, 1.0) if trainer.averaging else (0.1, 1.0, 10.0))
        finite = [w for w in tried if np.isfinite(w)] if trainer.loss.decides else [0.0]
        repeat = len(finite)
        for number, part in enumerate(held):
            if not (trainer.data.weights[part].any() and trainer.data.weights[kept[number]].any()):
                raise ModelError(
                    f"all samples of fold {number} or of the other folds have weight 0: use fewer folds, or "
                    f"folds that are not ordered"
                )
        first = trainer.lanes(anchors, kept, np.zeros(how.folds), np.zeros(how.folds))
        units = trainer.judge(first, kept).mean
        before = trainer.judge(first, held)
        if not (np.isfinite(units).all() and np.isfinite(before.mean).all()):
            raise SolveError("the loss of two-stage is not finite on the training data: check the cost")
        lanes = trainer.lanes(
            [a for a in anchors for _ in finite],
            [k for k in kept for _ in finite],
            np.tile(finite, how.folds),
            np.repeat(units, repeat),
        )
        parts = [h for h in held for _ in finite]
        reference = [v for v in before.values for _ in finite]
        chosen: dict[str, Any] = {
            "proximal_weight": float("inf"), "epochs": 0, "gain": 0.0, "standard_error": 0.0,
            "two_stage_score": float(np.average(before.mean, weights=[h.size for h in held])),
        }  # fmt: skip
        best = 1e-12 * (1.0 + abs(chosen["two_stage_score"]))  # rounding is no gain
        for epoch in self.bar.track(range(1, self.rounds + 1), "cross-validation"):
            trainer.epoch(lanes, self.rng)
            judged = trainer.judge(lanes, parts)
            for j, weight in enumerate(finite):
                lane = list(zip(reference, judged.values, judged.weights, strict=True))[j::repeat]
                gains = Gains.of([(r - v, w) for r, v, w in lane])
                score = gains.mean - how.caution * gains.error
                if score > best:  # never for NaN
                    best, self.gains = score, gains
                    found = {"gain": gains.mean, "standard_error": gains.error}
                    chosen |= {"proximal_weight": weight, "epochs": epoch, **found}
            self.bar.show(gain=chosen["gain"])
            if self.calls >= self.limit:
                break
        return chosen


@dataclass(frozen=True)
class Gains:
    """Held-out loss of two-stage minus that of a candidate: [N] times the samples' weights, and their sum."""

    weighted: np.ndarray
    total: float

    @staticmethod
    def of(parts: list[tuple[np.ndarray, np.ndarray]]) -> Gains:
        """From (differences, weights) of each held-out part."""
        weighted = np.concatenate([difference * w for difference, w in parts])
        return Gains(weighted, float(sum(w.sum() for _, w in parts)))

    @property
    def mean(self) -> float:
        """The mean gain."""
        return float(self.weighted.sum() / self.total)

    @property
    def error(self) -> float:
        """Its standard error."""
        n = self.weighted.size
        return float(self.weighted.std(ddof=1) * np.sqrt(n) / self.total) if n > 1 else 0.0

    def beats(self, other: Gains | None, caution: float) -> bool:
        """Whether it is above the other, on the same samples, by `caution` standard errors."""
        difference = self if other is None else Gains(self.weighted - other.weighted, self.total)
        return difference.mean > caution * difference.error
