"""`evaluate` and `compare`: judge predictors by their decisions, beside two-stage, honestly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.explanation import Explanation, explain
from decigrad.evaluation.metrics import Evaluation, plain
from decigrad.execution import opened
from decigrad.layer import DecisionLayer
from decigrad.losses import MSE, LeastSquares, Loss, Regret
from decigrad.predictors import Linear, outputs_of, predict
from decigrad.progress import tracked
from decigrad.registry import METHODS, Auto, Method
from decigrad.regressors import Regressor, is_regressor
from decigrad.selection import CrossValidation, FitResult
from decigrad.training import fit

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    predictor: Any,
    layer: DecisionLayer,
    data: Dataset,
    *,
    cost: Any = None,
    name: str = "predictor",
) -> Evaluation:
    """Judge a predictor by the decisions that the layer makes with its predictions.

    Regret is measured on the model's full objective under the true parameters, with the exact (unsmoothed)
    decision; for an exact solver it is never negative. Samples that fail are counted, not dropped.

    Args:
        predictor: a trained predictor (`fit(...).predictor`), or any callable pytree.
        layer: the decision layer.
        data: test data.
        cost: another cost of the decision in place of the objective (see `losses.Regret`).
        name: shown in tables.

    Returns:
        An `Evaluation`: regret by sample, normalized regret, prediction error, rank agreement and more.
    """
    started = time.perf_counter()
    data.check(layer)
    predicted = predict(predictor, data.features, outputs_of(layer))
    return evaluate_predictions(predicted, layer, data, cost=cost, name=name, started=started)


def evaluate_predictions(
    predicted: dict[str, np.ndarray],
    layer: DecisionLayer,
    data: Dataset,
    *,
    cost: Any = None,
    name: str = "predictor",
    started: float | None = None,
) -> Evaluation:
    """`evaluate` for predictions that are made already: by name, [B, *shape].

    Args:
        started: `time.perf_counter()` when the predictions were begun; None counts the decisions alone.
    """
    data.check(layer)
    loss = Regret(cost)
    loss.check(layer)
    exact = layer.exact
    before = time.perf_counter()
    best, _ = data.optimal(layer)
    labelled = time.perf_counter() - before
    made = exact.solve({**data.known, **predicted}, throw=False)
    seconds = time.perf_counter() - labelled - (before if started is None else started)
    optimum = _score(loss, exact, best.x, data)
    regret = _score(loss, exact, made.x, data) - optimum
    if cost is None:
        regret = _rounded(regret, optimum)
    return Evaluation(
        name=name,
        regret=regret,
        optimal_value=exact.sign * optimum if cost is None else optimum,
        predicted=predicted,
        true=data.parameters,
        decisions=made.x,
        optimal_decisions=best.x,
        failed=np.union1d(made.failed, best.failed),
        seconds=seconds,
        sense=_sense(layer),
    )


def _score(loss: Regret, layer: DecisionLayer, decisions: dict[str, Any], data: Dataset) -> np.ndarray:
    from decigrad.compiled import float64

    with float64():
        return np.broadcast_to(np.asarray(loss.score(layer, decisions, data.parameters)), (len(data),))


def _rounded(regret: np.ndarray, optimum: np.ndarray) -> np.ndarray:
    """Rounding errors of equal decisions are not negative regret; anything larger is left to be seen."""
    noise = 1e-10 * (1.0 + np.abs(optimum))
    return np.where((regret < 0) & (regret > -noise), 0.0, regret)


def _sense(layer: DecisionLayer) -> str:
    """Whether a small or a large value of the predicted cost vector attracts the decision."""
    (name, shape), *others = outputs_of(layer)
    if others or not shape:
        return layer.model.sense
    values = {n: np.ones(p.shape) for n, p in layer.parameters.items()}
    base = layer.form.assemble(values).q
    moved = layer.form.assemble({**values, name: values[name] + 1.0}).q
    return "maximize" if (moved - base).sum() < 0 else "minimize"


def _named_methods(linear: bool, selection: Any) -> dict[str, Method]:
    cross = (("selection", selection),)
    found = {name: replace(entry.make(), options=cross) for name, entry in METHODS.items()}
    found["auto"] = Method(Auto(), options=cross)
    found["two-stage"] = Method(LeastSquares()) if linear else Method(MSE(), options=cross)
    return found


@dataclass(frozen=True)
class Comparison:
    """Several methods trained and judged with the same seeds.

    Attributes:
        data: every run.
        results: of `fit`, by method, one a seed.
        layer: that they were judged by.
        test: test data of the first seed.
        title: of the report.
    """

    data: ComparisonData
    results: dict[str, list[FitResult]]
    layer: DecisionLayer
    test: Dataset
    title: str = "Comparison of decisions"

    def table(self) -> Table:
        """A Rich table: mean ± spread over seeds, and the paired gain over the baseline."""
        return self.data.table()

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140)
        with console.capture() as captured:
            console.print(self.table())
            for method in self.data.challengers:
                console.print(self.data.verdict(method).text)
        return captured.get()

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML report."""
        from decigrad.evaluation.comparison_report import comparison_report

        explanation = None if self.data.best is None else self.explain()
        return comparison_report(self.data, path, self.title, explanation=explanation)

    def explain(self, method: str | None = None) -> Explanation:
        """Why a method, by default the best, decides otherwise than the baseline.

        Who gains and loses, prediction error against regret, calibration, weights, sensitivity; prints as
        sentences.

        Raises:
            ModelError: the method is not one that was compared with the baseline.
        """
        method = self.data.best if method is None else method
        pair = [self.results[m][0].predictor for m in (self.data.baseline, method) if m in self.results]
        predictors = (pair[0], pair[1]) if len(pair) == 2 else None
        return explain(self.data, method, predictors=predictors, test=self.test, layer=self.layer)

    def to_json(self, path: str | Path | None = None) -> str:
        """Means, spreads, paired gains and settings as JSON; written to `path` if given."""
        data = self.data
        keys = ("mean_regret", "normalized_regret", "mse", "spearman", "correct_cheapest", "seconds_fit")
        methods: dict[str, dict[str, Any]] = {}
        for method in data.methods:
            estimates = {key: data.estimate(method, key) for key in keys}
            methods[method] = {k: {"mean": e.mean, "standard_error": e.error} for k, e in estimates.items()}
            methods[method]["by_seed"] = {"mean_regret": data.values(method, "mean_regret").tolist()}
        for method in data.challengers:
            gain = data.gain(method)
            methods[method]["gain_percent"] = {"mean": gain.estimate, "low": gain.low, "high": gain.high}
            methods[method]["verdict"] = {"text": data.verdict(method).text}
        content = {
            "baseline": data.baseline,
            "seeds": data.seeds,
            "methods": methods,
            "settings": data.settings,
        }
        text = json.dumps(plain(content), indent=1, default=str, allow_nan=False)
        if path is not None:
            from decigrad.files import write_atomically

            write_atomically(path, text + "\n", what="the results")
        return text


_DRAWN = {"loss": "loss", "validation": "validation_regret"}  # histories that the report draws
Draw = Callable[[int], tuple[Dataset, Dataset]]


def compare(
    layer: DecisionLayer,
    train: Dataset | Draw,
    test: Dataset | None = None,
    methods: Sequence[str] | Mapping[str, str | Loss | Method] = ("two-stage", "mse", "regret"),
    seeds: int | Sequence[int] = 5,
    *,
    predictor: Any = None,
    baseline: str = "two-stage",
    cost: Any = None,
    title: str = "Comparison of decisions",
    unit: str = "",
    block: int = 1,
    notes: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    executor: Any = None,
    workers: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Train several methods with several seeds and judge them on the same test data.

    Args:
        layer: the decision layer.
        train: training data, shared by all seeds; or a function `seed -> (train, test)` that draws both.
        test: test data, never used in training; omitted when `train` draws it.
        methods: names of `decigrad.methods()`, "auto", or a dict from labels to names, losses, `Method`s, or
            regressors as scikit-learn has them, which are fitted to the targets (see `Regressor`).
        seeds: how many (0, 1, …), or the seeds themselves. They shuffle, initialize and fold.
        predictor: `Linear()` by default; any predictor of `fit`.
        baseline: the method that the others are paired with; it is added when it is missing.
        cost: see `evaluate`.
        title, unit, block, notes: for the report; `block` is the length of dependent runs of test samples.
        checkpoint: a folder, made where it is missing, with a checkpoint for each fit, named by its label and
            seed; the same call goes on from there, and repeats no fit that is finished (see `fit`; regressors
            are fitted again).
        executor: who trains: None (this thread, one fit after the other), "processes", "ray", or what else
            `decigrad.execution.Pool` takes, or such a pool. Each fit is a job; the results are the same.
        workers: how many; by default one for each core.
        progress: as in `fit`; with an executor, of the fits that are done.
        options: passed to every `fit` (`epochs`, `batch_size`, `learning_rate`, …).

    Returns:
        A `Comparison`, with `.table()`, `.to_html(path)`, `.to_json(path)`.
    Raises:
        ModelError: a method, baseline or seed is missing, or `fit` refuses data, arguments or a checkpoint.
        KeyboardInterrupt: on Ctrl-C, when the fit at work has written its checkpoint; with an executor at
            once, and what was checkpointed stays.
    """
    predictor = Linear() if predictor is None else predictor
    selection = options.get("selection", CrossValidation())
    chosen = _methods(methods, baseline, _named_methods(isinstance(predictor, Linear), selection))
    listed = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not listed:
        raise ModelError("compare needs at least one seed")
    if (test is None) != callable(train):
        raise ModelError("compare needs train and test data, or one function seed -> (train, test)")
    together = executor is None
    fits = _Fits(
        layer, train, test, chosen, predictor, cost, _folder(checkpoint),
        {"progress": progress if together else False, **options},
    )  # fmt: skip
    known, first = fits.data(listed[0])
    jobs = [(label, seed) for seed in listed for label in chosen]
    runs: dict[str, list[Run]] = {label: [] for label in chosen}
    results: dict[str, list[FitResult]] = {label: [] for label in chosen}
    with opened(executor, workers) as pool:
        named = ((f"{label}, seed {seed}", (label, seed)) for label, seed in jobs)
        done = pool.map(_fitted, fits, named, bounded=False, kind=lambda job: job[0])
        bar = tracked(jobs, "fits", False if together else progress)
        for (label, _), (run, result) in zip(bar, done, strict=True):
            runs[label].append(run)
            results[label].append(result)
    data = ComparisonData(
        runs,
        baseline=baseline,
        settings=_settings(layer, predictor, (len(known), len(first)), options),
        notes=list(notes),
        unit=unit,
        block=block,
    )
    return Comparison(data, results, layer, first, title)


@dataclass(frozen=True)
class _Fits:
    """What all fits of a comparison have in common."""

    layer: DecisionLayer
    train: Dataset | Draw
    test: Dataset | None
    methods: dict[str, Method]
    predictor: Any
    cost: Any
    folder: Path | None
    options: dict[str, Any]
    drawn: dict[int, tuple[Dataset, Dataset]] = field(default_factory=dict)
    """By seed, what `train` has drawn last."""

    def data(self, seed: int) -> tuple[Dataset, Dataset]:
        """Training and test data."""
        if not callable(self.train):
            assert self.test is not None
            return self.train, self.test
        if seed not in self.drawn:
            self.drawn.clear()
            self.drawn[seed] = self.train(seed)
        return self.drawn[seed]


def _fitted(fits: _Fits, job: tuple[str, int]) -> tuple[Run, FitResult]:
    """One method trained and judged with one seed."""
    label, seed = job
    known, unseen = fits.data(seed)
    method = fits.methods[label]
    settings = {**fits.options, **dict(method.options)}
    if fits.folder is not None:
        settings["checkpoint"] = fits.folder / f"{quote(label, safe=' +')}-{seed}.ckpt"
    if getattr(method.loss, "decides", True):
        known.optimal(fits.layer)  # labels are of no fit: which of them comes first must not show
    result = fit(
        fits.predictor if method.predictor is None else method.predictor,
        method.layer(fits.layer), known, method.loss, seed=seed, **settings,
    )  # fmt: skip
    if result.interrupted:
        raise KeyboardInterrupt
    evaluation = evaluate(result.predictor, fits.layer, unseen, cost=fits.cost, name=label)
    history = {_DRAWN[k]: v for k, v in result.history.items() if k in _DRAWN}
    return Run(seed, evaluation, history, result.seconds), result


def _folder(checkpoint: str | Path | None) -> Path | None:
    """The folder of the checkpoints, made."""
    if checkpoint is None:
        return None
    folder = Path(checkpoint)
    if folder.exists() and not folder.is_dir():
        raise ModelError(
            f"checkpoint {str(folder)!r} of compare is a file: it must be a folder, one file a fit"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _methods(methods: Any, baseline: str, known: dict[str, Method]) -> dict[str, Method]:
    wanted = dict(methods) if isinstance(methods, Mapping) else {name: name for name in methods}
    found = {}
    for label, method in wanted.items():
        if isinstance(method, str):
            if method not in known:
                raise ModelError(
                    f"compare knows no method {method!r}; it knows {', '.join(known)}, or pass a loss"
                )
            found[label] = known[method]
        else:
            if is_regressor(method):
                method = Method(LeastSquares(), predictor=Regressor(method))
            found[label] = method if isinstance(method, Method) else Method(method)
    if baseline not in found:
        if baseline not in known:
            raise ModelError(f"the baseline {baseline!r} is not among the methods {list(found)}")
        found = {baseline: known[baseline], **found}
    return found


def _settings(
    layer: DecisionLayer, predictor: Any, sizes: tuple[int, int], options: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model": layer.model.name,
        "predicted": ", ".join(layer.predicts),
        "predictor": str(predictor),
        "solver": layer.why,
        "gradient": str(layer.gradient),
        "training samples": sizes[0],
        "test samples": sizes[1],
        **{key: str(value) for key, value in options.items() if key != "callbacks"},
    }
