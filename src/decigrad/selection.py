"""One training from two-stage to the predictor that is returned: selection, then the final training."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.losses import MSE, LeastSquares
from decigrad.predictors import LinearPredictor, initialized, least_squares
from decigrad.progress import Progress
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
    """Train on a part of the data and stop early by the loss on the rest; the best epoch is returned.

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
        history: by epoch of the final training: "loss", "failed" (samples without a decision) and, where
            something was held out, "validation".
        chosen: proximal weight and epochs that were chosen, and the scores behind the choice; of `Auto` also
            the "method", and by candidate the "advantages": held-out gain less `caution` standard errors.
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
        self.epoch_seconds: list[float] = []
        self.advantage = 0.0
        """Held-out gain over two-stage, less `caution` standard errors; 0 where two-stage is kept."""
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
        self.finish = lambda: self._final(proximal_weight, self.epochs, {"proximal_weight": proximal_weight})
        if isinstance(self.trainer.loss, LeastSquares):
            found = self._closed_form(start, everything)
            self.finish = lambda: FitResult(found, found, {}, {"method": "closed form"}, 0.0, 0)
        elif isinstance(selection, HoldOut):
            result = self._hold_out(selection, start, warm_start)
            self.finish = lambda: result
        else:
            self.anchor = self._two_stage(start, [everything], warm_start)[0]
            if selection is not None:
                self.best = self.anchor
                chosen = self._cross_validate(selection, start, warm_start)
                if chosen["epochs"]:
                    self.advantage = chosen["gain"] - selection.caution * chosen["standard_error"]
                self.finish = lambda: self._final(chosen["proximal_weight"], chosen["epochs"], chosen)

    def rescued(self) -> FitResult:
        """The best predictor at hand when the user interrupts."""
        if self.best is None:
            raise KeyboardInterrupt
        return FitResult(
            self.best, self.anchor, self.history, {"interrupted": True}, 0.0, 0, interrupted=True
        )

    def _closed_form(self, start: Any, index: np.ndarray) -> LinearPredictor:
        if not isinstance(start, LinearPredictor):
            raise ModelError("LeastSquares in closed form needs Linear(); use MSE() for other predictors")
        ridge = self.trainer.loss.ridge if isinstance(self.trainer.loss, LeastSquares) else 0.0
        return least_squares(start, self.trainer.data.take(index), ridge=ridge)

    def _two_stage(self, start: Any, parts: list[np.ndarray], warm_start: Any) -> list[Any]:
        """The two-stage predictor of each part of the data (or the start given in its place)."""
        if warm_start is False or not self.trainer.loss.decides:
            return [start] * len(parts)
        if warm_start is not True:
            return [initialized(warm_start, self.trainer.layer, self.trainer.data, 0)] * len(parts)
        if isinstance(start, LinearPredictor):
            return [self._closed_form(start, part) for part in parts]
        twin = Trainer(
            start,
            self.trainer.layer,
            MSE(),
            self.trainer.data,
            self.trainer.optimizer,
            self.trainer.batch_size,
        )
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
            if self.validation is not None:
                score = self.validation.judge(lanes, [np.arange(len(self.validation.data))])
                self.history.setdefault("validation", []).append(float(score.mean[0]))
            self.best = trainer.predictor(lanes, 0)
            self.bar.show(**{k: v[-1] for k, v in self.history.items()})
        return FitResult(self.best, self.anchor, self.history, chosen, 0.0, 0)

    def _epoch(self, lanes: Lanes) -> None:
        """One epoch of a single lane, recorded and timed."""
        began = time.perf_counter()
        loss, failed = self.trainer.epoch(lanes, self.rng)
        self.epoch_seconds.append(time.perf_counter() - began)
        self.history["loss"].append(float(loss[0]))
        self.history["failed"].append(int(failed[0]))

    def _hold_out(self, how: HoldOut, start: Any, warm_start: Any) -> FitResult:
        trainer, n = self.trainer, len(self.trainer.data)
        held = min(max(round(how.fraction * n), 1), n - 1)
        if n < 2:
            raise ModelError("HoldOut needs at least two samples")
        order = np.arange(n) if how.ordered else self.rng.permutation(n)
        train, test = order[: n - held], order[n - held :]
        self.anchor = self._two_stage(start, [train], warm_start)[0]
        lanes = trainer.lanes([self.anchor], [train], np.zeros(1), np.zeros(1))
        before = best = float(trainer.judge(lanes, [test]).mean[0])
        self.best, since, at = self.anchor, 0, 0
        for epoch in self.bar.track(range(self.epochs), "training"):
            self._epoch(lanes)
            score = float(trainer.judge(lanes, [test]).mean[0])
            self.history.setdefault("validation", []).append(score)
            self.bar.show(loss=self.history["loss"][-1], validation=score)
            since += 1
            if score < best:
                best, since, at, self.best = score, 0, epoch + 1, trainer.predictor(lanes, 0)
            if since > how.patience or self.calls >= self.limit:
                break
        self.advantage = before - best
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
        first = trainer.lanes(anchors, kept, np.zeros(how.folds), np.zeros(how.folds))
        units = trainer.judge(first, kept).mean
        before = trainer.judge(first, held)
        lanes = trainer.lanes(
            [a for a in anchors for _ in finite],
            [k for k in kept for _ in finite],
            np.tile(finite, how.folds),
            np.repeat(units, repeat),
        )
        parts = [h for h in held for _ in finite]
        reference = [v for v in before.values for _ in finite]
        gains = np.zeros((self.epochs + 1, repeat))
        errors = np.zeros_like(gains)
        for epoch in self.bar.track(range(1, self.epochs + 1), "cross-validation"):
            trainer.epoch(lanes, self.rng)
            judged = trainer.judge(lanes, parts)
            for j in range(repeat):
                each = [
                    (r - v) * w
                    for r, v, w in list(zip(reference, judged.values, judged.weights, strict=True))[j::repeat]
                ]
                together = np.concatenate(each)
                total = sum(w.sum() for w in judged.weights[j::repeat])
                gains[epoch, j] = together.sum() / total
                errors[epoch, j] = together.std(ddof=1) * np.sqrt(together.size) / total
            self.bar.show(gain=float(gains[epoch].max()))
            if self.calls >= self.limit:
                break
        return _choice(
            how, finite, gains, errors, float(np.average(before.mean, weights=[h.size for h in held]))
        )


def _choice(
    how: CrossValidation, weights: list[float], gains: np.ndarray, errors: np.ndarray, two_stage: float
) -> dict[str, Any]:
    epoch, j = np.unravel_index(int(np.argmax(gains - how.caution * errors)), gains.shape)
    found = {
        "two_stage_score": two_stage,
        "gain": float(gains[epoch, j]),
        "standard_error": float(errors[epoch, j]),
    }
    rounding = 1e-12 * (1.0 + abs(two_stage))
    if epoch == 0 or gains[epoch, j] <= how.caution * errors[epoch, j] + rounding:
        return {"proximal_weight": float("inf"), "epochs": 0, **found}
    return {"proximal_weight": weights[int(j)], "epochs": int(epoch), **found}
