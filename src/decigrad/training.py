"""`fit`: train a predictor by a loss of its decisions, from two-stage on, and choose honestly.

candidates → phases (`phases`), each by steps of several lanes (`trainer`, `steps`) and saved (`checkpoint`)
and told (`callbacks`) after every epoch
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import optax

from decigrad import steps
from decigrad.callbacks import Callbacks, Event, Interrupts
from decigrad.checkpoint import Checkpoint, drawn
from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError, SolveError
from decigrad.execution import distributed
from decigrad.fingerprint import digest
from decigrad.layer import DecisionLayer
from decigrad.losses import MSE, LeastSquares, Loss, Regret
from decigrad.phases import Run, like, trained
from decigrad.placement import Placement
from decigrad.predictors import Linear, initialized, outputs_of
from decigrad.progress import Progress
from decigrad.registry import Auto, Method, named
from decigrad.regressors import Regressor, Residual, Stacked, is_regressor
from decigrad.selection import CrossValidation, FitResult, HoldOut
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
    learning_rate: float | Callable[[Any], Any] = 0.01,
    optimizer: optax.GradientTransformation | None = None,
    clip: float | None = None,
    proximal_weight: float = 0.0,
    warm_start: bool | Any = True,
    averaging: bool | None = None,
    validation: Dataset | None = None,
    on_failure: Literal["continue", "raise"] = "continue",
    solve_ratio: float = 1.0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    callbacks: Sequence[Callable[[Event], Any]] = (),
    devices: int | Sequence[Any] | None = None,
    executor: Any = None,
    workers: int | None = None,
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
        learning_rate: of Adam, in standardized units for `Linear()` and `MLP()`; or a schedule of optax's, a
            function of the number of steps, which every phase counts from 0.
        optimizer: an optax transformation in place of Adam.
        clip: largest global norm of a step's gradient; a longer one is shortened to it.
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
        checkpoint: a file that holds the state of the fit; the same call goes on from there after a kill or
            Ctrl-C, and ends with the same bits. It refuses other data or arguments.
        checkpoint_every: epochs between two writings of it.
        callbacks: called with an `Event` after every epoch (see `decigrad.callbacks`); one that returns True
            ends the phase, with the best found so far.
        devices: JAX devices that divide the samples of every step among them (a list, or how many of
            `jax.devices()`): `batch_size` must be a multiple of their number. A host solver solves on the
            host as before; results agree with those of one device to rounding.
        executor: who solves on the host: None (this thread), "threads" (for `HiGHS`, which runs outside of
            Python's lock), "processes", "ray", or what else `decigrad.execution.Pool` takes, or such a pool.
            A batch is cut into one part for each worker; the result is the same. It pays where a batch takes
            many milliseconds.
        workers: how many; by default one for each core.
        progress: a progress bar; by default where the terminal shows one.

    Raises:
        ModelError: data, predictor or loss do not fit the layer; the checkpoint is another fit's, or damaged.
        SolveError: every sample of an epoch failed, one did and `on_failure="raise"`, or a gradient became
            NaN or infinite: the message names the sample. Its `result` is the best until then.
    """
    data.check(layer)
    if validation is not None:
        validation.check(layer)
        if validation.features.shape[1:] != data.features.shape[1:]:
            shapes = validation.features.shape[1:], data.features.shape[1:]
            raise ModelError(f"validation has features of shape {shapes[0]} per sample, data {shapes[1]}")
    if epochs < 1 or batch_size < 1:
        raise ModelError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    if not (callable(learning_rate) or (isinstance(learning_rate, Real) and math.isfinite(learning_rate))):
        raise ModelError(f"learning_rate must be a finite number or a schedule, got {learning_rate!r}")
    if not (hasattr(seed, "permutation") or (isinstance(seed, int | np.integer) and seed >= 0)):
        raise ModelError(f"seed must be a whole number ≥ 0 or a NumPy generator, got {seed!r}")
    if not proximal_weight >= 0:
        raise ModelError(f"proximal_weight must be ≥ 0, got {proximal_weight!r}")
    if clip is not None and not clip > 0:
        raise ModelError(f"clip must be a positive norm, got {clip!r}")
    if checkpoint_every < 1:
        raise ModelError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    if not 0 <= solve_ratio <= 1:
        raise ModelError(f"solve_ratio must lie between 0 and 1, got {solve_ratio}")
    placement = Placement(devices)
    if batch_size % placement.count:
        raise ModelError(f"batch_size {batch_size} is not a multiple of the {placement.count} devices")
    if on_failure not in ("continue", "raise"):
        raise ModelError(f"on_failure must be 'continue' or 'raise', got {on_failure!r}")
    if executor is not None and not layer.solver.host:
        raise ModelError(
            f"solver {layer.solver.name!r} decides within compiled steps, where no executor can: leave it at "
            f"None, or give it to compare, which makes each fit a job"
        )
    stack: Stacked | None = None
    if isinstance(predictor, Residual):
        if not isinstance(warm_start, bool):
            raise ModelError("Residual starts from its regressor: leave warm_start as it is")
        stack = predictor.stacked(data, layer, _integer(seed))
        predictor, data, warm_start = stack.start, stack.data, False
        validation = None if validation is None else stack.extended(validation)
    if isinstance(predictor, Regressor):  # in one call: nothing to resume, no epochs to tell
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
    tell = Callbacks([Progress(progress), *callbacks, Interrupts()])
    start, begin = initialized(predictor, layer, data, _integer(seed)), warm_start
    if not (isinstance(warm_start, bool | Regressor) or is_regressor(warm_start)):
        start, begin = _begun(warm_start, start, layer, data), False
    runs: dict[str, Run] = {}
    refused: dict[str, ModelError] = {}
    with float64(), distributed(executor, workers):
        record = Checkpoint(checkpoint, checkpoint_every, {} if checkpoint is None else {
            "data": _digest(data),
            "layer": digest(layer), "predictor": digest(predictor), "loss": digest(loss, tried),
            "validation": digest(None if validation is None else _digest(validation)),
            "seed": digest(_integer(seed), drawn(rng)), "selection": digest(selection),
            "epochs": digest(epochs), "batch_size": digest(batch_size),
            "learning_rate": digest(learning_rate), "optimizer": digest(optimizer), "clip": digest(clip),
            "proximal_weight": digest(proximal_weight), "warm_start": digest(warm_start),
            "averaging": digest(averaging), "on_failure": digest(on_failure),
            "solve_ratio": digest(solve_ratio), "devices": digest(placement.count),
            "versions of JAX and NumPy": digest(jax.__version__, np.__version__),
        })  # fmt: skip
        if record.result is not None:
            return _finished(_restored(record.result, start), stack)
        adam = optimizer or steps.adam(learning_rate)
        adam = adam if clip is None else steps.clipped(adam, float(clip))
        for name, method in tried.items():
            try:
                through = method.layer(layer)
                method.loss.check(through)
                smooth = averaging
                if smooth is None:
                    smooth = method.loss.decides and not (method.loss.through and through.gradient.exact)
                trainer = Trainer(
                    start, through, method.loss, data, adam, batch_size, _integer(seed), smooth,
                    stop=on_failure == "raise", solve_ratio=solve_ratio, placement=placement,
                )  # fmt: skip
            except ModelError as error:
                refused[name] = error
                continue
            draws = copy.deepcopy(rng) if auto else rng  # the same folds for all
            runs[name] = Run(name, trainer, start, draws, epochs, record, tell, validation, limit)
        if not runs:
            raise next(iter(refused.values()))

        def whole(best: str, result: FitResult) -> FitResult:
            """The result with what all candidates took."""
            reuses = [run.trainer.reuse for run in runs.values() if run.trainer.reuse is not None]
            return replace(
                result, seconds=record.seconds, solver_calls=sum(run.calls for run in runs.values()),
                saved_calls=sum(reuse.saved for reuse in reuses),
                failures=dict(sorted(runs[best].trainer.failures.items())),
                epoch_seconds=runs[best].found.epoch_seconds,
            )  # fmt: skip

        try:
            with tell:
                for run in runs.values():
                    run.select(selection, proximal_weight, begin)
                best = _best(runs, loss)
                result = whole(best, runs[best].finish())
            if auto:
                gains = {name: run.found.gains for name, run in runs.items()}
                result.chosen["gains"] = {name: g.mean if g else 0.0 for name, g in gains.items()}
                result.chosen["refused"] = {name: str(error) for name, error in refused.items()}
                result.chosen["method"] = best if gains[best] else "two-stage"
            record.finish(_saved(result))
        except KeyboardInterrupt:
            best = _best(runs, loss)
            rescued = runs[best].rescued()
            if rescued is None:
                raise
            result = whole(best, rescued)
        except SolveError as error:
            best = _best(runs, loss)
            rescued = runs[best].rescued()
            error.result = None if rescued is None else _finished(whole(best, rescued), stack)
            raise
        finally:
            record.flush()
    if result.failures:
        first, status = next(iter(result.failures.items()))
        logging.getLogger("decigrad").warning(
            "%d of %d samples failed to solve at least once, the first is %d (%s); see FitResult.failures",
            len(result.failures), len(data), first, status,
        )  # fmt: skip
    return _finished(result, stack)


def _digest(data: Dataset) -> str:
    return digest(data.features, data.targets, data.known, data.weights, data.times, data.groups)


def _begun(warm_start: Any, start: Any, layer: DecisionLayer, data: Dataset) -> Any:
    """The predictor to start from in place of `start`; it must be of the same kind."""
    made = initialized(warm_start, layer, data, 0)
    mine, other = (
        jax.tree_util.tree_map(lambda a: a.shape, eqx.filter(one, steps.is_trained)) for one in (start, made)
    )
    if not eqx.tree_equal(mine, other):
        raise ModelError("warm_start is a predictor of another kind or size than `predictor`")
    return made


def _finished(result: FitResult, stack: Stacked | None) -> FitResult:
    """The result with the predictors that were asked for: those of a `Residual` with its regressor."""
    if stack is None:
        return result
    pair = stack.finished(result.predictor), stack.finished(result.two_stage)
    return replace(result, predictor=pair[0], two_stage=pair[1])


def _saved(result: FitResult) -> dict[str, Any]:
    """A result as the checkpoint keeps it."""
    predictors = {"predictor": trained(result.predictor), "two_stage": trained(result.two_stage)}
    return {**vars(result), **predictors, "failures": list(result.failures.items())}


def _restored(state: dict[str, Any], start: Any) -> FitResult:
    """The result that a checkpoint kept; its predictors are like `start`."""
    predictors = {name: like(start, state[name]) for name in ("predictor", "two_stage")}
    return FitResult(**{**state, **predictors, "failures": dict(state["failures"])})


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
    names = [name for name, run in runs.items() if run.found.anchor is not None] or list(runs)
    best = names[0]
    for name in names[1:]:
        gains = runs[name].found.gains
        if gains is not None and gains.beats(runs[best].found.gains, loss.caution):
            best = name
    return best


def _method(loss: Loss | str | None, predictor: Any) -> Method:
    """What to train with: a loss as it is, or the method of a name."""
    if loss is None:
        return Method(Regret())
    if not isinstance(loss, str):
        if isinstance(loss, type) or not hasattr(loss, "decides"):
            shown = f"the class {loss.__name__}" if isinstance(loss, type) else type(loss).__name__
            raise ModelError(
                f"loss must be one such as Regret(), the name of a method, or Auto(), got {shown}"
            )
        return Method(loss)
    if loss == "two-stage" and not isinstance(predictor, Linear):
        return Method(MSE())
    return named(loss)


def _integer(seed: Any) -> int:
    """The seed of what NumPy does not draw; a generator in place of a seed leaves that at 0."""
    return int(seed) if isinstance(seed, int | np.integer) else 0
