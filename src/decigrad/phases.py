"""One training from two-stage to the predictor that is returned, in phases of epochs that can be resumed.

What lies between the phases (folds, closed forms, first judgements) is found again when a fit is resumed: it
follows from the arguments. What epochs change is one state, kept by the checkpoint after each of them, and
put back where a phase begins that was begun before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np

from decigrad import steps
from decigrad.callbacks import Callbacks, Event
from decigrad.checkpoint import Checkpoint, drawn, leaves, redrawn, refilled
from decigrad.data import Dataset
from decigrad.errors import ModelError, SolveError
from decigrad.lanes import Lanes
from decigrad.losses import MSE, LeastSquares
from decigrad.predictors import LinearPredictor, least_squares, outputs_of
from decigrad.regressors import Regressor, is_regressor, taught
from decigrad.selection import CrossValidation, FitResult, Gains, HoldOut
from decigrad.splits import folds_of, held_out
from decigrad.trainer import Trainer


@dataclass
class Phase:
    """A loop of epochs: where it stands, and the figures of its last epoch (see `Event`)."""

    name: str
    epochs: int
    epoch: int = 0
    ended: bool = False
    loss: float = float("nan")
    failed: int = 0
    calls: int = 0  # programs solved before it
    seconds: float = 0.0
    validation: float | None = None
    gain: float | None = None


@dataclass
class Found:
    """What a run knows so far."""

    anchor: Any = None
    """Two-stage on all data, or on the training part of `HoldOut`."""
    best: Any = None
    gains: Gains | None = None
    """Held-out gains over two-stage of what was selected; None where two-stage is kept."""
    chosen: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "failed": [], "solver_calls": []}
    )
    epoch_seconds: list[float] = field(default_factory=list)

    def state(self) -> Any:
        """What a checkpoint keeps."""
        gains = None if self.gains is None else [self.gains.values, self.gains.weights]
        predictors = {"anchor": trained(self.anchor), "best": trained(self.best)}
        return {**vars(self), **predictors, "gains": gains}

    @staticmethod
    def restored(state: Any, start: Any) -> Found:
        """From there; the predictors are like `start`."""
        predictors = {name: like(start, state[name]) for name in ("anchor", "best")}
        gains = None if state["gains"] is None else Gains(*state["gains"])
        return Found(**{**state, **predictors, "gains": gains})


def trained(predictor: Any) -> list[Any] | None:
    """The trained arrays of a predictor."""
    return None if predictor is None else leaves(eqx.filter(predictor, steps.is_trained))


def like(start: Any, found: list[np.ndarray] | None) -> Any:
    """A predictor with other trained arrays."""
    if found is None:
        return None
    parameters, rest = eqx.partition(start, steps.is_trained)
    return eqx.combine(refilled(parameters, found), rest)


class Run:
    """One method's `fit`: two-stage, selection, final training. Knows the best so far for Ctrl-C."""

    def __init__(
        self,
        method: str,
        trainer: Trainer,
        start: Any,
        rng: Any,
        epochs: int,
        checkpoint: Checkpoint,
        callbacks: Callbacks,
        validation: Dataset | None = None,
        limit: float = np.inf,
    ) -> None:
        self.method, self.trainer, self.start, self.rng, self.epochs = method, trainer, start, rng, epochs
        self.checkpoint, self.callbacks, self.limit = checkpoint, callbacks, limit
        self.rounds = 0 if trainer.idle else epochs  # an exact derivative of zero moves nothing
        self.found = Found()
        self.finish: Callable[[], FitResult]
        """The final training."""
        self.validation = None if validation is None else trainer.like(validation)
        self._draft: Callable[[], Any] = lambda: None  # two-stage as far as it is trained

    @property
    def calls(self) -> int:
        """Programs solved."""
        return self.trainer.calls + (self.validation.calls if self.validation else 0)

    @property
    def _weights(self) -> np.ndarray:
        """The samples' weights, 0 for those without a decision under their true parameters."""
        return self.trainer.weights

    def select(self, selection: Any, proximal_weight: float, warm_start: Any) -> None:
        """Two-stage, and what `selection` finds out: all but the final training."""
        everything = np.arange(len(self.trainer.data))
        self.finish = lambda: self._final(proximal_weight, self.rounds, {"proximal_weight": proximal_weight})
        if isinstance(self.trainer.loss, LeastSquares):
            found = self._closed_form(self.trainer.data)
            self.finish = lambda: FitResult(found, found, {}, {"method": "closed form"}, 0.0, 0)
        elif isinstance(selection, HoldOut):
            result = self._hold_out(selection, warm_start)
            self.finish = lambda: result
        else:
            self.found.anchor = self._two_stage("two-stage", [everything], warm_start)[0]
            if selection is not None:
                chosen = self._cross_validate(selection, warm_start)
                self.finish = lambda: self._final(chosen["proximal_weight"], chosen["epochs"], chosen)

    def rescued(self) -> FitResult | None:
        """The best predictor at hand when training is broken off; None where nothing is trained."""
        found = self.found
        anchor = self._draft() if found.anchor is None else found.anchor
        if anchor is None:
            return None
        best = anchor if found.best is None else found.best
        return FitResult(best, anchor, found.history, {"interrupted": True}, 0.0, 0, interrupted=True)

    # ------------------------------------------------------------------------------------------- phases

    def _epochs(
        self, name: str, trainer: Trainer, lanes: Lanes, epochs: int, rng: Any, lasting: bool = False
    ) -> Iterator[Phase]:
        """Train epoch after epoch, from where the checkpoint left the phase; the caller judges each of them.

        `lasting`: the lanes are needed when the phase is over.
        """
        phase, key = Phase(name, epochs), f"{self.method}/{name}"
        saved = self.checkpoint.phase(key)
        if saved is not None:
            phase.epoch, phase.ended = saved["epoch"], saved["ended"]
            self.found = Found.restored(saved["found"], self.start)
            trainer.restore(saved["trainer"])
            redrawn(rng, saved["rng"])
            if self.validation is not None:
                self.validation.restore(saved["validation"])
            if saved["lanes"] is not None:
                lanes.restore(saved["lanes"])
        while phase.epoch < epochs and not phase.ended:
            began, phase.calls = time.perf_counter(), self.calls
            loss, failed = trainer.epoch(lanes, rng)
            phase.seconds = time.perf_counter() - began
            phase.epoch, phase.loss, phase.failed = phase.epoch + 1, float(loss.mean()), int(failed.sum())
            yield phase
            stopped = self.callbacks(
                Event(
                    self.checkpoint.fit, self.method, name, phase.epoch, epochs, phase.loss, phase.validation,
                    phase.gain, phase.failed, self.calls, phase.seconds,
                )
            )  # fmt: skip
            phase.ended = phase.ended or stopped or phase.epoch == epochs
            if self.checkpoint.path is not None:
                state = {
                    "epoch": phase.epoch, "ended": phase.ended, "found": self.found.state(),
                    "trainer": trainer.state(), "rng": drawn(rng),
                    "validation": None if self.validation is None else self.validation.state(),
                    "lanes": lanes.state() if lasting or not phase.ended else None,
                }  # fmt: skip
                self.checkpoint.keep(key, state)

    def _record(self, phase: Phase, lanes: Lanes, held_out: float | None = None) -> None:
        """An epoch of a single lane in the history: with the loss on other data, or what was held out."""
        if self.validation is not None:
            score = self.validation.judge(lanes, [np.arange(len(self.validation.data))])
            held_out = float(score.mean[0])
        history = self.found.history
        history["loss"].append(phase.loss)
        history["failed"].append(phase.failed)
        history["solver_calls"].append(self.calls - phase.calls)
        if held_out is not None:
            phase.validation = held_out
            history.setdefault("validation", []).append(held_out)
        self.found.epoch_seconds.append(phase.seconds)

    def _closed_form(self, data: Dataset) -> LinearPredictor:
        if not isinstance(self.start, LinearPredictor):
            raise ModelError("LeastSquares in closed form needs Linear(); use MSE() for other predictors")
        ridge = self.trainer.loss.ridge if isinstance(self.trainer.loss, LeastSquares) else 0.0
        return least_squares(self.start, data, ridge=ridge)

    def _two_stage(self, name: str, parts: list[np.ndarray], warm_start: Any) -> list[Any]:
        """The two-stage predictor of each part of the data (or the start given in its place)."""
        trainer = self.trainer
        if isinstance(warm_start, Regressor) or is_regressor(warm_start):
            outputs = outputs_of(trainer.layer)
            named = [name] if len(parts) == 1 else [f"{name} {i + 1}" for i in range(len(parts))]
            return [
                self._learned(label, taught(warm_start, trainer.data, part, outputs, trainer.seed), [part])[0]
                for label, part in zip(named, parts, strict=True)
            ]
        if warm_start is False or not trainer.loss.decides:
            return [self.start] * len(parts)
        return self._learned(name, trainer.data, parts)

    def _learned(self, name: str, data: Dataset, parts: list[np.ndarray]) -> list[Any]:
        """Least squares on each part of the data: in closed form where there is one, else by gradient."""
        if isinstance(self.start, LinearPredictor):
            whole = len(data)
            return [self._closed_form(data if part.size == whole else data.take(part)) for part in parts]
        trainer, zero = self.trainer, np.zeros(len(parts))
        twin = Trainer(
            self.start, trainer.layer, MSE(), data, trainer.optimizer, trainer.batch_size,
            placement=trainer.placement,
        )  # fmt: skip
        lanes = twin.lanes([self.start] * len(parts), parts, zero, zero)
        self._draft = lambda: twin.predictor(lanes, 0) if lanes.epochs else None
        for _ in self._epochs(name, twin, lanes, self.epochs, np.random.default_rng(0), lasting=True):
            pass
        return [twin.predictor(lanes, i) for i in range(len(parts))]

    def _final(self, weight: float, epochs: int, chosen: dict[str, Any]) -> FitResult:
        trainer, everything = self.trainer, np.arange(len(self.trainer.data))
        anchor = self.found.anchor
        if np.isinf(weight) or epochs == 0:
            return FitResult(anchor, anchor, self.found.history, chosen, 0.0, 0)
        first = trainer.lanes([anchor], [everything], np.zeros(1), np.zeros(1))
        unit = trainer.judge(first, [everything]).mean if weight > 0 else np.zeros(1)
        lanes = trainer.lanes([anchor], [everything], np.array([weight]), unit)
        for phase in self._epochs("training", trainer, lanes, epochs, self.rng):
            self._record(phase, lanes)
            self.found.best = trainer.predictor(lanes, 0)
        return FitResult(self.found.best, self.found.anchor, self.found.history, chosen, 0.0, 0)

    def _hold_out(self, how: HoldOut, warm_start: Any) -> FitResult:
        trainer, n = self.trainer, len(self.trainer.data)
        if n < 2:
            raise ModelError("HoldOut needs at least two samples")
        train, test = held_out(trainer.data, how.fraction, how.ordered, self.rng)
        if not (self._weights[train].any() and self._weights[test].any()):
            raise ModelError(
                "HoldOut: all samples held out or all others have weight 0, or no decision under their true "
                "parameters: change the fraction, or hold out others"
            )
        self.found.anchor = self._two_stage("two-stage", [train], warm_start)[0]
        lanes = trainer.lanes([self.found.anchor], [train], np.zeros(1), np.zeros(1))
        before = trainer.judge(lanes, [test])
        _refuse_unless_finite(before.mean)
        self.found.chosen = {"epochs": 0, "validation": float(before.mean[0])}
        for phase in self._epochs("training", trainer, lanes, self.rounds, self.rng):
            judged = trainer.judge(lanes, [test])
            score, found = float(judged.mean[0]), self.found
            self._record(phase, lanes, score)
            if score < found.chosen["validation"]:
                found.best = trainer.predictor(lanes, 0)
                found.chosen = {"epochs": phase.epoch, "validation": score}
                found.gains = Gains.of([(before.values[0] - judged.values[0], judged.weights[0])])
            waited = phase.epoch - found.chosen["epochs"]
            phase.ended = waited >= how.patience or self.calls >= self.limit
        best, chosen = self.found.best, self.found.chosen
        if best is None:  # two-stage it is: on all data
            best = self._two_stage("two-stage on all data", [np.arange(n)], warm_start)[0]
        return FitResult(best, self.found.anchor, self.found.history, chosen, 0.0, 0)

    def _cross_validate(self, how: CrossValidation, warm_start: Any) -> dict[str, Any]:
        """Proximal weight and number of epochs with the best held-out loss, two-stage included."""
        trainer, n = self.trainer, len(self.trainer.data)
        held, kept = self._folds(how, n)
        anchors = self._two_stage("two-stage by fold", kept, warm_start)
        tried = how.weights or ((0.0, 0.1, 1.0) if trainer.averaging else (0.1, 1.0, 10.0))
        finite = [w for w in tried if np.isfinite(w)] if trainer.loss.decides else [0.0]
        repeat = len(finite)
        first = trainer.lanes(anchors, kept, np.zeros(how.folds), np.zeros(how.folds))
        everything = [np.concatenate(both) for both in zip(kept, held, strict=True)]
        inside, before = trainer.judge(first, everything).divided([part.size for part in kept])
        units = inside.mean
        _refuse_unless_finite(units, before.mean)
        lanes = trainer.lanes(
            [a for a in anchors for _ in finite],
            [k for k in kept for _ in finite],
            np.tile(finite, how.folds),
            np.repeat(units, repeat),
        )
        parts = [h for h in held for _ in finite]
        reference = [v for v in before.values for _ in finite]
        self.found.chosen = {
            "proximal_weight": float("inf"), "epochs": 0, "gain": 0.0, "standard_error": 0.0,
            "two_stage_score": float(np.average(before.mean, weights=[w.sum() for w in before.weights])),
        }  # fmt: skip
        rounding = 1e-12 * (1.0 + abs(self.found.chosen["two_stage_score"]))  # is no gain
        for phase in self._epochs("cross-validation", trainer, lanes, self.rounds, self.rng):
            judged, found = trainer.judge(lanes, parts), self.found
            for j, weight in enumerate(finite):
                lane = list(zip(reference, judged.values, judged.weights, strict=True))[j::repeat]
                gains = Gains.of([(r - v, w) for r, v, w in lane])
                best = rounding if found.gains is None else found.gains.cautious(how.caution)
                if gains.cautious(how.caution) > best:  # never for NaN
                    found.gains = gains
                    figures = {"gain": gains.mean, "standard_error": gains.error}
                    found.chosen |= {"proximal_weight": weight, "epochs": phase.epoch, **figures}
            phase.gain = found.chosen["gain"]
            phase.ended = self.calls >= self.limit
        return self.found.chosen

    def _folds(self, how: CrossValidation, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What each fold holds out, and what it keeps."""
        if n < 2 * how.folds:
            raise ModelError(
                f"CrossValidation with {how.folds} folds needs at least {2 * how.folds} samples, got {n}"
            )
        held = folds_of(self.trainer.data, how.folds, how.ordered, self.rng)
        kept = [np.concatenate([*held[:i], *held[i + 1 :]]) for i in range(how.folds)]
        weights = self._weights
        for number, (out, left) in enumerate(zip(held, kept, strict=True)):
            if not (weights[out].any() and weights[left].any()):
                raise ModelError(
                    f"all samples of fold {number} or of the other folds have weight 0, or no decision "
                    f"under their true parameters: use fewer folds, or folds that are not ordered"
                )
        return held, kept


def _refuse_unless_finite(*losses: np.ndarray) -> None:
    if not all(np.isfinite(loss).all() for loss in losses):
        raise SolveError("the loss of two-stage is not finite on the training data: check the cost")
