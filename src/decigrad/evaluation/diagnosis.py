"""`diagnose`: will decision-focused training help on these data? Measured on held-out samples.

two-stage, constant and flexible predictions, all held out → regret of each, the noise, how decisions answer
errors, the learning curve → `Diagnosis`, whose sentences and pictures are read off those numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.evaluation._structure import KernelRegression, noise_test
from decigrad.evaluation.findings import Diagnosis
from decigrad.evaluation.judge import evaluate_predictions
from decigrad.evaluation.learning import fit_learning_curve
from decigrad.evaluation.metrics import Evaluation, equal_decisions
from decigrad.losses.surrogate import refuse_nonlinear
from decigrad.predictors import CNN, MLP, Linear, outputs_of, predict
from decigrad.regressors import Regressor, is_regressor
from decigrad.splits import folds_of
from decigrad.training import fit

if TYPE_CHECKING:
    from decigrad.layer import DecisionLayer

Folds = list[tuple[Dataset, Dataset]]
_SHIFTS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def diagnose(
    layer: DecisionLayer,
    data: Dataset,
    *,
    predictor: Any = None,
    flexible: Any = None,
    folds: int | Iterable[tuple[Dataset, Dataset]] = 5,
    ordered: bool | None = None,
    seed: int = 0,
    draws: int = 5,
    sizes: Sequence[int] | None = None,
    unit: str = "",
    progress: bool | None = None,
) -> Diagnosis:
    """Whether decision-focused training may help: what is to gain, and why, on held-out samples.

    Nothing is trained for decisions. Two-stage predictions, those of a more flexible predictor and the mean
    of the targets are made for every sample by training on the other folds, decided with, and scored.

    - **Noise floor**: the regret of deciding by μ̃ = ĉ + (1 − ρ)(c − ĉ), with ĉ the flexible predictions and
      ρ
      the share of their error that is noise (`noise_test`). It errs high where ρ does: rough truths, few
      samples, many features. Where the objective is not affine in the predicted parameters, their mean is
      not the best thing to decide by: there is no floor then, and a constant *correction* of the predictions
      is tried in its place.
    - **Within the error**: predictions are moved by errors drawn from all samples, `draws` times.
    - **Samples needed**: two-stage trained on parts of each fold (`fit_learning_curve`).

    Args:
        layer: the decision layer.
        data: samples; weights count in training and in all means, known parameters are used as given.
        predictor: what would be trained; `Linear()` by default, any predictor of `fit`, or a regressor as
            scikit-learn has them.
        flexible: a more flexible one, to compare with; by default the two-stage predictions plus a kernel
            regression of its errors on the features.
        folds: how many; or pairs of training and test data, as
            `walk_forward` and `group_folds` make them.
        ordered: as in `CrossValidation`, groups of the data included.
        seed: of folds, draws and bootstraps.
        draws: errors tried on each sample.
        sizes: training samples of the learning curve; by default up to four, down to an eighth. `()`: none.
        unit: of the objective, for labels.
        progress: as in `fit`, which is called for every fold.

    Returns:
        A `Diagnosis`: prints as text; `.to_html(path)`, `.as_dict()`.
    Raises:
        ModelError: data do not fit the layer, or too few samples.

    Source of the noise estimate: Evans and Jones (2002), doi:10.1098/rspa.2002.1010.
    """
    predictor = _recipe(Linear() if predictor is None else predictor)
    data.check(layer)
    if draws < 1:
        raise ModelError(f"draws must be at least 1, got {draws}")
    rng = np.random.default_rng(seed)
    parts = _parts(folds, layer, data, ordered, rng)
    other = None if flexible is None else _recipe(flexible)
    study = _Study(layer, parts, predictor, other, seed, progress)
    judged = study.judged
    evaluations = {
        name: evaluate_predictions(found, layer, judged, name=name)
        for name, found in study.predictions.items()
    }
    full = evaluations["two-stage"].regret
    if not np.isfinite(full).any():
        raise ModelError("no held-out sample could be decided by two-stage: check the model")
    features = judged.features.reshape(len(judged), -1)
    noise = noise_test(features, study.errors("flexible"), judged.weights, seed)
    affine = _affine(layer)
    changed, moved = study.within_the_error(evaluations["two-stage"], draws, rng)
    counts = _sizes(sizes, parts, predictor)
    curve = np.array([*(study.regret_after(size, i) for i, size in enumerate(counts)), full])
    usual = round(float(np.mean([len(train) for train, _ in parts])))
    return Diagnosis(
        evaluations=evaluations,
        weights=judged.weights,
        noise=noise,
        floors=study.floors(noise.share.mean, noise.share.error) if affine else None,
        corrected=None if affine else study.corrected(evaluations["two-stage"]),
        changed=changed,
        moved=moved,
        learning=fit_learning_curve([*counts, usual], curve, judged.weights, seed),
        predictor=_named(predictor),
        flexible="A kernel regression of its errors" if flexible is None else _named(_recipe(flexible)),
        folds=len(parts),
        unit=unit,
    )


class _Study:
    """Held-out predictions of the judged samples (the test parts, one after the other), and their uses."""

    def __init__(
        self,
        layer: DecisionLayer,
        parts: Folds,
        predictor: Any,
        flexible: Any,
        seed: int,
        progress: bool | None,
    ) -> None:
        self.layer, self.parts, self.predictor = layer, parts, predictor
        self.seed, self.progress, self.outputs = seed, progress, outputs_of(layer)
        self.judged = _joined([test for _, test in parts])
        self.fold = np.repeat(np.arange(len(parts)), [len(test) for _, test in parts])
        found = [self._predicted(train, test.features, flexible) for train, test in parts]
        self.predictions = {
            name: _stacked([by_name[name] for by_name in found])
            for name in ("constant", "two-stage", "flexible")
        }

    def _predicted(self, known: Dataset, features: np.ndarray, flexible: Any) -> dict[str, Any]:
        """One fold's test samples by all three."""
        mean = {n: np.average(known.targets[n], axis=0, weights=known.weights) for n, _ in self.outputs}
        constant = {n: np.broadcast_to(value, (len(features), *value.shape)) for n, value in mean.items()}
        found = self.two_stage(self.predictor, known)
        first = predict(found, features, self.outputs)
        if flexible is not None:
            second = predict(self.two_stage(flexible, known), features, self.outputs)
        else:
            left = self.flat(known.targets) - self.flat(predict(found, known.features, self.outputs))
            inside = known.features.reshape(len(known), -1)
            kernel = KernelRegression.fit(inside, left, known.weights, self.seed)
            second = self.shaped(self.flat(first) + kernel.predict(features.reshape(len(features), -1)))
        return {"constant": constant, "two-stage": first, "flexible": second}

    def two_stage(self, predictor: Any, known: Dataset) -> Any:
        return fit(
            predictor, self.layer, known, "two-stage", seed=self.seed, progress=self.progress
        ).predictor

    def flat(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """All predicted parameters, [B, m]."""
        return np.concatenate([values[n].reshape(len(values[n]), -1) for n, _ in self.outputs], axis=1)

    def shaped(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The inverse of `flat`."""
        cuts = np.cumsum([int(np.prod(shape, dtype=int)) for _, shape in self.outputs])[:-1]
        parts = np.split(flat, cuts, axis=1)
        return {n: p.reshape(len(flat), *shape) for (n, shape), p in zip(self.outputs, parts, strict=True)}

    def errors(self, name: str) -> np.ndarray:
        """True minus predicted, [B, m]."""
        return self.flat(self.judged.targets) - self.flat(self.predictions[name])

    def regret(self, flat: np.ndarray) -> np.ndarray:
        """[B] of deciding by [B, m]."""
        return evaluate_predictions(self.shaped(flat), self.layer, self.judged).regret

    def floors(self, share: float, error: float) -> np.ndarray:
        """[3, B] regret at μ̃, for the share of noise and for it minus and plus its error."""
        base, errors = self.flat(self.predictions["flexible"]), self.errors("flexible")
        reach = error if np.isfinite(error) else 0.0
        found: dict[float, np.ndarray] = {}
        tried = [float(np.clip(share + k * reach, 0.0, 1.0)) for k in (0.0, -1.0, 1.0)]
        for rho in tried:
            if rho not in found:
                found[rho] = self.regret(base + (1.0 - rho) * errors)
        return np.stack([found[rho] for rho in tried])

    def corrected(self, two_stage: Evaluation) -> np.ndarray:
        """[B] regret after adding a constant multiple of the error's spread, chosen on the other folds."""
        base, spread = self.flat(self.predictions["two-stage"]), self.errors("two-stage").std(axis=0)
        tried = np.stack([two_stage.regret if s == 0 else self.regret(base + s * spread) for s in _SHIFTS])
        out, w = np.array(two_stage.regret), self.judged.weights
        for number in range(len(self.parts)):
            here = self.fold == number
            others = ~here & np.isfinite(tried).all(axis=0)
            if (w * others).any():
                out[here] = tried[int(np.argmin(tried[:, others] @ w[others])), here]
        return out

    def within_the_error(
        self, two_stage: Evaluation, draws: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """By sample, [B]: share of draws that change the decision; mean cost of the change if ĉ were true."""
        exact, predicted = self.layer.exact, self.predictions["two-stage"]
        base, errors = self.flat(predicted), self.errors("two-stage")
        parameters = {**self.judged.known, **predicted}
        p = self.judged.weights / self.judged.weights.sum()
        changed, moved = np.zeros((2, draws, len(base)))
        with float64():
            before = exact.sign * np.asarray(exact.objective(two_stage.decisions, parameters))
            for d in range(draws):
                drawn = rng.choice(len(base), len(base), p=p)
                moves = exact.solve({**self.judged.known, **self.shaped(base + errors[drawn])}, throw=False).x
                changed[d] = 1.0 - equal_decisions(moves, two_stage.decisions)
                moved[d] = exact.sign * np.asarray(exact.objective(moves, parameters)) - before
        changed = np.where(np.isfinite(moved), changed, np.nan)
        return changed.mean(axis=0), np.maximum(moved, 0.0).mean(axis=0)

    def regret_after(self, size: int, number: int) -> np.ndarray:
        """[B] held-out regret of two-stage trained on `size` samples of each fold's training part."""
        found = []
        for i, (train, test) in enumerate(self.parts):
            rng = np.random.default_rng((self.seed, number, i))
            useful = np.flatnonzero(train.weights > 0)
            part = train.take(np.sort(rng.choice(useful, min(size, len(useful)), replace=False)))
            found.append(predict(self.two_stage(self.predictor, part), test.features, self.outputs))
        return evaluate_predictions(_stacked(found), self.layer, self.judged).regret


def _stacked(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: Sequence[Dataset]) -> Dataset:
    return Dataset(
        np.concatenate([part.features for part in parts]),
        _stacked([part.targets for part in parts]),
        _stacked([part.known for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
    )


def _recipe(predictor: Any) -> Any:
    return Regressor(predictor) if is_regressor(predictor) else predictor


def _named(predictor: Any) -> str:
    """How a predictor is called in a sentence."""
    known = {
        Linear: "the linear predictor",
        MLP: "the multilayer perceptron",
        CNN: "the convolutional network",
    }
    owner = predictor.estimator if isinstance(predictor, Regressor) else predictor
    return known.get(type(owner), type(owner).__name__)


def _affine(layer: DecisionLayer) -> bool:
    """Whether the expected parameters are the best thing to decide by."""
    try:
        refuse_nonlinear(layer, "diagnose")
    except ModelError:
        return False
    return True


def _parts(
    folds: Any, layer: DecisionLayer, data: Dataset, ordered: bool | None, rng: np.random.Generator
) -> Folds:
    n = len(data)
    if not isinstance(folds, int | np.integer):
        found = list(folds)
        if not found:
            raise ModelError("folds must hold at least one pair of training and test data")
        for part in found:
            for half in part:
                half.check(layer)
    elif folds < 2 or n < 2 * folds:
        raise ModelError(
            f"diagnose with {folds} folds needs at least 2 folds and {2 * max(folds, 2)} samples, got {n}"
        )
    else:
        tests = [np.sort(part) for part in folds_of(data, int(folds), ordered, rng)]
        found = [(data.take(np.setdiff1d(np.arange(n), test)), data.take(test)) for test in tests]
    for number, (train, test) in enumerate(found):
        if not (train.weights.any() and test.weights.any()):
            raise ModelError(f"fold {number}: all its training or all its test samples have weight 0")
    return found


def _sizes(sizes: Sequence[int] | None, parts: Folds, predictor: Any) -> list[int]:
    """Training sizes of the learning curve below the folds' own."""
    largest = min(len(train) for train, _ in parts)
    if sizes is not None:
        if any(int(s) != s or s < 2 for s in sizes):
            raise ModelError(f"sizes must be whole numbers of at least 2, got {list(sizes)}")
        return sorted({int(s) for s in sizes if s < largest})
    data = parts[0][0]
    inputs = data.features.shape[-1] if getattr(predictor, "shared", False) else data.features[0].size
    # Least squares on hardly more samples than features says nothing about the curve further out.
    smallest = max(10, 3 * (inputs + 1) if isinstance(predictor, Linear) else 0, largest // 8)
    if smallest * 2 > largest:
        return []
    return sorted({int(s) for s in np.geomspace(smallest, largest, 4)[:-1]})
