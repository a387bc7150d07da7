"""`fit`: train a predictor by a loss of its decisions, from two-stage on, and choose honestly.

candidates → selection (`selection`), each by steps of several lanes (`trainer`, `steps`) → final training
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import optax

from decigrad import steps
from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.layer import DecisionLayer
from decigrad.losses import MSE, LeastSquares, Loss, Regret
from decigrad.predictors import Linear, initialized, outputs_of
from decigrad.progress import Progress
from decigrad.registry import Auto, Method, named
from decigrad.regressors import Regressor, Residual, Stacked
from decigrad.selection import CrossValidation, FitResult, HoldOut, Run
from decigrad.trainer import Trainer


def fit(
    predictor: Any,
    layer: DecisionLayer,
    data: Dataset,
    loss: Loss | str | Auto | None = None,
    *,
    seed: int | Any = 0,
    selection: CrossValidation | HoldOut | str | None = "default",
    epochs: int = 40,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    optimizer: optax.GradientTransformation | None = None,
    proximal_weight: float = 0.0,
    warm_start: bool | Any = True,
    averaging: bool | None = None,
    validation: Dataset | None = None,
    on_failure: Literal["continue", "raise"] = "continue",
    solve_ratio: float = 1.0,
    progress: bool | None = None,
) -> FitResult:
    """Train a predictor for the decisions that a layer makes with its predictions.

    Args:
        predictor: `Linear()`, `MLP()`, or any callable pytree (see `decigrad.predictors`); or `Regressor()`,
            for loss="two-stage" alone; or `Residual()`, a correction of one.
        layer: the decision layer.
        data: features, true and known parameters.
        loss: `Regret()` by default; `MSE()` and `LeastSquares()` are the two-stage losses. Or the name of a
            method (`decigrad.methods()`); or "auto" (`Auto`): the best of a few, two-stage among them.
        seed: an int, or a NumPy random generator with `.permutation`, which shuffles the samples.
        selection: `CrossValidation()` (default for losses of the decision), `HoldOut()`, or None: all
            epochs on all data with `proximal_weight`.
        epochs: passes over the data (at most, where some are selected).
        batch_size: samples a step.
        learning_rate: of Adam; in standardized units for `Linear()` and `MLP()`.
        optimizer: an optax transformation in place of Adam.
        proximal_weight: pull towards two-stage (see `CrossValidation`), used when selection is None.
        warm_start: start from two-stage: least squares for `Linear`, else the mean squared error by
            gradient. False starts from the predictor as it is; a predictor starts from that one; a
            regressor as scikit-learn has them is fitted first, and least squares is that of its predictions.
        averaging: judge and return a running mean of the weights over the last epochs, which takes out
            the noise of subgradients; by default for losses of the decision without an exact derivative.
        validation: other data on which the loss is recorded every epoch; it decides nothing.
        on_failure: when the decision for a prediction fails: "continue" without the sample in that step (see
            `FitResult.failures`; a warning is logged at the end), or "raise" an error that names it. A sample
            without a decision under its true parameters is an error, unless the layer has `throw=False`:
            then it is left out and listed too.
        solve_ratio: share of the steps, drawn with `seed`, that solve; the others take the best decision
            known so far (see `decigrad.reuse`). For surrogates, whose decisions need no derivative;
            `FitResult.saved_calls` counts what it saves.
        progress: a progress bar; by default where the terminal shows one.

    Raises:
        ModelError: data, predictor or loss do not fit the layer.
        SolveError: every sample of an epoch failed, one did and `on_failure="raise"`, or the loss became NaN.
    """
    started = time.perf_counter()
    data.check(layer)
    if epochs < 1 or batch_size < 1:
        raise ModelError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    if not 0 <= solve_ratio <= 1:
        raise ModelError(f"solve_ratio must lie between 0 and 1, got {solve_ratio}")
    if on_failure not in ("continue", "raise"):
        raise ModelError(f"on_failure must be 'continue' or 'raise', got {on_failure!r}")
    stack: Stacked | None = None
    if isinstance(predictor, Residual):
        if not isinstance(warm_start, bool):
            raise ModelError("Residual starts from its regressor: leave warm_start as it is")
        stack = predictor.stacked(data, layer, _integer(seed))
        predictor, data, warm_start = stack.start, stack.data, False
        validation = None if validation is None else stack.extended(validation)
    if isinstance(predictor, Regressor):
        return _regressed(predictor, layer, data, loss, _integer(seed))
    if loss == "auto":
        loss = Auto()
    auto = isinstance(loss, Auto)
    tried = loss.candidates(layer) if isinstance(loss, Auto) else {"": _method(loss, predictor)}
    if selection == "default":
        selection = CrossValidation() if any(m.loss.decides for m in tried.values()) else None
    if not (selection is None or isinstance(selection, CrossValidation | HoldOut)):
        raise ModelError(f"selection must be CrossValidation(), HoldOut() or None, got {selection!r}")
    if auto and selection is None:
        raise ModelError(
            "Auto chooses between methods by held-out regret: it needs a selection, such as CrossValidation()"
        )
    budget = loss.solver_calls if isinstance(loss, Auto) else None
    limit = np.inf if budget is None else budget / len(tried)
    rng = np.random.default_rng(seed) if isinstance(seed, int | np.integer) else seed
    start = initialized(predictor, layer, data, _integer(seed))
    runs: dict[str, Run] = {}
    refused: dict[str, ModelError] = {}
    with float64():
        bar = Progress(progress)
        adam = optimizer or steps.adam(learning_rate)
        for name, method in tried.items():
            try:
                through = method.layer(layer)
                method.loss.check(through)
                smooth = averaging
                if smooth is None:
                    smooth = method.loss.decides and not (method.loss.through and through.gradient.exact)
                trainer = Trainer(
                    start, through, method.loss, data, adam, batch_size, _integer(seed), smooth,
                    stop=on_failure == "raise", solve_ratio=solve_ratio,
                )  # fmt: skip
            except ModelError as error:
                refused[name] = error
                continue
            draws = copy.deepcopy(rng) if auto else rng  # the same folds for all
            runs[name] = Run(trainer, draws, epochs, bar, validation, limit)
        if not runs:
            raise next(iter(refused.values()))
        try:
            with bar:
                for run in runs.values():
                    run.select(selection, start, proximal_weight, warm_start)
                best = _best(runs, loss)
                result = runs[best].finish()
        except KeyboardInterrupt:
            best = _best(runs, loss)
            result = runs[best].rescued()
    if auto and not result.interrupted:
        result.chosen["gains"] = {name: run.gains.mean if run.gains else 0.0 for name, run in runs.items()}
        result.chosen["refused"] = {name: str(error) for name, error in refused.items()}
        result.chosen["method"] = best if runs[best].gains else "two-stage"
    if stack is not None:
        pair = stack.finished(result.predictor), stack.finished(result.two_stage)
        result = replace(result, predictor=pair[0], two_stage=pair[1])
    failures = dict(sorted(runs[best].trainer.failures.items()))
    if failures:
        first, status = next(iter(failures.items()))
        logging.getLogger("decigrad").warning(
            "%d of %d samples failed to solve at least once, the first is %d (%s); see FitResult.failures",
            len(failures), len(data), first, status,
        )  # fmt: skip
    calls = sum(run.calls for run in runs.values())
    saved = sum(run.trainer.pool.saved for run in runs.values() if run.trainer.pool is not None)
    seconds = time.perf_counter() - started
    return replace(
        result, seconds=seconds, solver_calls=calls, saved_calls=saved, failures=failures,
        epoch_seconds=runs[best].epoch_seconds,
    )  # fmt: skip


def _regressed(predictor: Regressor, layer: DecisionLayer, data: Dataset, loss: Any, seed: int) -> FitResult:
    """A scikit-learn regressor, fitted to the targets."""
    if loss not in ("two-stage", LeastSquares(), MSE()):
        raise ModelError(
            f"{type(predictor.estimator).__name__} is fitted to the targets, never by the gradient of a "
            f"loss: pass loss='two-stage', or train Linear() or MLP()"
        )
    started = time.perf_counter()
    found = predictor.fitted(data, outputs_of(layer), seed)
    return FitResult(found, found, {}, {"method": "regressor"}, time.perf_counter() - started, 0)


def _best(runs: dict[str, Run], loss: Any) -> str:
    """The first candidate, or a later one that beats the best of those before it by `Auto.caution`."""
    names = [name for name, run in runs.items() if run.anchor is not None] or list(runs)
    best = names[0]
    for name in names[1:]:
        gains = runs[name].gains
        if gains is not None and gains.beats(runs[best].gains, loss.caution):
            best = name
    return best


def _method(loss: Loss | str | None, predictor: Any) -> Method:
    """What to train with: a loss as it is, or the method of a name."""
    if not isinstance(loss, str):
        return Method(Regret() if loss is None else loss)
    if loss == "two-stage" and not isinstance(predictor, Linear):
        return Method(MSE())
    return named(loss)


def _integer(seed: Any) -> int:
    """The seed of what NumPy does not draw; a generator in place of a seed leaves that at 0."""
    return int(seed) if isinstance(seed, int | np.integer) else 0
