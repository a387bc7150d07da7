"""Three looks at a judged predictor: its weights, its calibration, the sensitivity of a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.evaluation.metrics import Evaluation
from decigrad.predictors import LinearPredictor

if TYPE_CHECKING:
    from decigrad.data import Dataset
    from decigrad.layer import DecisionLayer

BINS = 10
_MAX_ENTRIES = 40_000


@dataclass(frozen=True)
class WeightChange:
    """What a feature does to each prediction, before and after.

    Attributes:
        features, outputs: names of the p inputs and m predicted entries.
        before, after: [p, m] change of a prediction, in standard deviations of its target, per standard
            deviation of the feature.
        exact: these are the weights of linear predictors; else the linear part of what they predict.
        linear: shares of the variance of the predictions that the linear part makes up, before and after.
    """

    features: list[str]
    outputs: list[str]
    before: np.ndarray
    after: np.ndarray
    exact: bool
    linear: tuple[float, float]

    @cached_property
    def by_feature(self) -> np.ndarray:
        """[p] root mean square change over the outputs."""
        return np.sqrt(((self.after - self.before) ** 2).mean(axis=1))

    @property
    def relative(self) -> float:
        """‖after − before‖ / ‖before‖."""
        size = float(np.linalg.norm(self.before))
        return float(np.linalg.norm(self.after - self.before)) / size if size > 0 else float("nan")


@dataclass(frozen=True)
class Calibration:
    """Predicted against true values: means in bins of equal counts of predictions, [K] each.

    `slope` is that of the true on the predicted values: 1 where predictions are neither too bold nor too
    timid;
    `bias` is the mean of predicted − true in standard deviations of the targets.
    """

    predicted: np.ndarray
    true: np.ndarray
    slope: float
    bias: float


@dataclass(frozen=True)
class Sensitivity:
    """dx*/dĉ at one instance's prediction: [variables, parameters] with their labels."""

    instance: int
    matrix: np.ndarray
    variables: list[str]
    parameters: list[str]


def weight_change(
    predictors: tuple[Any, Any], evaluations: tuple[Evaluation, Evaluation], test: Dataset
) -> WeightChange:
    """Standardized weights of two linear predictors; of others, those of the best linear fit to what they
    predict for the test features.

    One predictor shared by all items has one row of weights for all of them.
    """
    first = evaluations[0]
    shared = all(bool(getattr(p, "shared", False)) for p in predictors)
    outputs = component_labels({k: v.shape[1:] for k, v in first.predicted.items()})
    x = test.features.reshape(-1, test.features.shape[-1]) if shared else test.features.reshape(len(test), -1)
    made = [flat(e.predicted).reshape(len(x), -1) for e in evaluations]
    true = flat(first.true, first.predicted).reshape(len(x), -1)
    if shared:
        outputs = ["each item"]
    unit = deviation(true)
    scale = x.std(axis=0)
    shape = made[0].shape[1], x.shape[1]
    exact = all(isinstance(p, LinearPredictor) and p.coefficients[0].shape == shape for p in predictors)
    found, linear = [], []
    for predictor, prediction in zip(predictors, made, strict=True):
        if exact:
            found.append(predictor.coefficients[0].T * scale[:, None] / unit)
            linear.append(1.0)
            continue
        centred = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
        moved = (prediction - prediction.mean(axis=0)) / unit
        solution = np.linalg.lstsq(centred, moved, rcond=None)[0]
        total = float((moved**2).sum())
        rest = float(((moved - centred @ solution) ** 2).sum())
        found.append(solution)
        linear.append(1.0 - rest / total if total > 0 else 1.0)
    names = test.feature_names
    if names is None or len(names) != x.shape[1]:
        names = [f"feature {j}" for j in range(x.shape[1])]
    return WeightChange(list(names), outputs, found[0], found[1], exact, (linear[0], linear[1]))


def calibration(evaluation: Evaluation) -> Calibration:
    """Of all predicted entries together, each in standard deviations from its mean target."""
    true = flat(evaluation.true, evaluation.predicted)
    centre, unit = true.mean(axis=0), deviation(true)
    p = ((flat(evaluation.predicted) - centre) / unit).ravel()
    t = ((true - centre) / unit).ravel()
    good = np.isfinite(p) & np.isfinite(t)
    p, t = p[good], t[good]
    if not len(p):
        return Calibration(p, t, float("nan"), float("nan"))
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), BINS) if len(part)]
    variance = float(p.var())
    slope = float(((p - p.mean()) * (t - t.mean())).mean()) / variance if variance > 1e-24 else float("nan")
    means = [np.array([values[part].mean() for part in parts]) for values in (p, t)]
    return Calibration(means[0], means[1], slope, float((p - t).mean()))


def sensitivity_at(layer: DecisionLayer, evaluation: Evaluation, instance: int) -> Sensitivity | str:
    """dx*/dĉ at an instance's prediction, or why there is none."""
    form = layer.form
    predicted = {n: layer.parameters[n].shape for n in layer.predicts}
    size = sum(int(np.prod(shape, dtype=int)) for shape in predicted.values())
    if form.integer:
        return "Not shown: decisions that are whole numbers have no derivative."
    if form.num_user * size > _MAX_ENTRIES:
        return f"Not shown: {form.num_user} variables × {size} predicted entries are too many to look at."
    values = {n: a[instance] for n, a in {**evaluation.true, **evaluation.predicted}.items()}
    values = {n: a for n, a in values.items() if n in layer.parameters}
    try:
        solution = layer.model.solve(values, throw=False)
        parts = [solution.sensitivity_matrix(name) for name in predicted]
    except ModelError as error:
        return f"Not shown: {error}."
    matrix = np.concatenate(parts, axis=1)
    # What rounding leaves of a zero, in units of decision per prediction.
    moved = max(float(np.abs(x).max(initial=0.0)) for x in solution.x.values())
    reach = max(float(np.abs(values[n]).max(initial=0.0)) for n in predicted)
    matrix = np.where(np.abs(matrix) * reach > 1e-9 * moved, matrix, 0.0)
    shapes = {n: v.shape for n, v in form.variables.items() if n in layer.model.variables}
    return Sensitivity(
        instance,
        matrix,
        component_labels(shapes, False),
        component_labels(predicted, False),
    )


def component_labels(shapes: dict[str, tuple[int, ...]], short: bool = True) -> list[str]:
    """A label for every entry: "x[0,1]", or "[0,1]" alone for the entries of a single name if `short`."""
    labels = []
    for name, shape in shapes.items():
        prefix = "" if short and len(shapes) == 1 and shape else name
        labels += [prefix + ("[" + ",".join(map(str, i)) + "]" if shape else "") for i in np.ndindex(*shape)]
    return labels


def flat(values: dict[str, np.ndarray], names: Sequence[str] | Any = None) -> np.ndarray:
    """All entries of the named parameters, [B, m]."""
    parts = [np.asarray(values[n], float) for n in (values if names is None else names)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def deviation(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each column, 1 where it is constant."""
    found = values.std(axis=0)
    return np.where(found > 1e-12 * (1.0 + np.abs(values).max(axis=0)), found, 1.0)
