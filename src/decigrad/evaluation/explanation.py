"""Why one method decides otherwise than another: numbers first, pictures and sentences from them.

Every part is a pure function of two evaluations on the same instances; weights and sensitivity need the
predictors, the features and the layer as well, and are None without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.evaluation.aspects import (
    Calibration,
    Sensitivity,
    WeightChange,
    calibration,
    deviation,
    flat,
    sensitivity_at,
    weight_change,
)
from decigrad.evaluation.comparison import ComparisonData, Verdict
from decigrad.evaluation.metrics import Evaluation, equal_decisions
from decigrad.evaluation.prediction import spearman
from decigrad.evaluation.statistics import Interval, format_number, signed

if TYPE_CHECKING:
    from decigrad.data import Dataset
    from decigrad.layer import DecisionLayer

LISTED = 5
"""Instances listed at either end."""


@dataclass(frozen=True)
class Explanation:
    """Why `method` decides otherwise than `baseline`.

    Attributes:
        verdict, gain: whether the difference is more than chance, and its interval (see `ComparisonData`).
        gains: [B] regret of the baseline minus that of the method by instance; the mean over seeds where they
            share the test set, else of the first seed. NaN where either failed.
        errors: per method, [B] root mean square error of an instance's predictions in standard deviations of
            the targets, first seed; `regrets`: its regret.
        mse: of baseline and method, in squared standard deviations of the targets.
        calibration: of baseline and method, first seed.
        changed: share of instances, first seed, on which the two decide differently.
        optimal: share of optimal decisions of baseline and method.
        weights, sensitivity: of the first seed, or None; `missing` says why.
    """

    method: str
    baseline: str
    verdict: Verdict
    gain: Interval
    gains: np.ndarray
    errors: tuple[np.ndarray, np.ndarray]
    regrets: tuple[np.ndarray, np.ndarray]
    mse: tuple[float, float]
    calibration: tuple[Calibration, Calibration]
    changed: float
    optimal: tuple[float, float]
    weights: WeightChange | None
    sensitivity: Sensitivity | None
    missing: dict[str, str]
    unit: str = ""

    @cached_property
    def order(self) -> np.ndarray:
        """Positions of the instances with a gain, from the largest to the largest loss."""
        good = np.flatnonzero(np.isfinite(self.gains))
        return good[np.argsort(-self.gains[good], kind="stable")]

    @cached_property
    def shares(self) -> tuple[float, float, float]:
        """Shares of instances that gain, lose and stay the same."""
        g = self.gains[self.order]
        if not len(g):
            return float("nan"), float("nan"), float("nan")
        near = 1e-9 * max(1e-12, float(np.abs(np.concatenate(self.regrets))[self._finite].max(initial=0.0)))
        better, worse = float((g > near).mean()), float((g < -near).mean())
        return better, worse, float((np.abs(g) <= near).mean())

    @property
    def _finite(self) -> np.ndarray:
        return np.isfinite(np.concatenate(self.regrets))

    @cached_property
    def concentration(self) -> float:
        """Smallest share of all instances whose gains make up half of all that is gained (losses apart)."""
        g = np.maximum(self.gains[self.order], 0.0)
        if not g.sum() > 0:
            return float("nan")
        return float((np.cumsum(g) < 0.5 * g.sum()).sum() + 1) / len(g)

    @cached_property
    def agreement(self) -> tuple[float, float]:
        """Rank correlation over instances of prediction error and regret, for baseline and method."""
        found = []
        for error, regret in zip(self.errors, self.regrets, strict=True):
            good = np.isfinite(error) & np.isfinite(regret)
            varies = good.sum() > 2 and np.ptp(regret[good]) > 0 and np.ptp(error[good]) > 0
            found.append(
                float(spearman(error[None, good], regret[None, good])[0]) if varies else float("nan")
            )
        return found[0], found[1]

    @cached_property
    def sentences(self) -> list[tuple[str, str]]:
        """(heading, sentence) in the order they are read."""
        return list(self._sentences())

    def _sentences(self) -> Iterator[tuple[str, str]]:
        yield "Is it more than chance", self.verdict.text
        gained, lost, same = (f"{format_number(100 * s, 2)} %" for s in self.shares)
        text = (
            f"{self.method} decides better than {self.baseline} on {gained} of the instances, worse on "
            f"{lost}, equally well on {same}."
        )
        if np.isfinite(self.concentration):
            text += (
                f" Half of all that is gained comes from {100 * self.concentration:.0f} % of the instances."
            )
        yield "Who gains and who loses", text if len(self.order) else "No instance was decided by both."
        text = f"The two decide differently on {100 * self.changed:.0f} % of the instances"
        text += "; optimal decisions: {} → {}.".format(*(f"{100 * o:.0f} %" for o in self.optimal))
        yield "Decisions before and after", text
        yield "Regret against prediction error", self._trade()
        before, after = self.calibration
        text = (
            f"Slope of true on predicted values {_short(before.slope)} → {_short(after.slope)} (1 is "
            "neither too "
            f"bold nor too timid); bias {_signed(before.bias)} → {_signed(after.bias)} standard deviations."
        )
        astray = abs(after.slope - 1.0) - abs(before.slope - 1.0), abs(after.bias) - abs(before.bias)
        if max(astray) > 0.1:
            text += f" Do not read the predictions of {self.method} as estimates: they are made to decide by."
        yield "Calibration", text
        yield "Weights", self.missing.get("weights") or self._moved()
        yield "Sensitivity", self.missing.get("sensitivity") or self._steep()

    def _trade(self) -> str:
        before, after = self.mse
        ratio = after / before if before > 0 else float("nan")
        if not np.isfinite(ratio):
            text = "The prediction errors cannot be compared."
        elif ratio > 1.01:
            text = f"{self.method} predicts worse (squared error × {format_number(ratio, 3)})"
            better = np.nanmean(self.gains) > 0 if len(self.order) else False
            text += (
                " and decides better: it gives up accuracy where no decision depends on it."
                if better
                else "."
            )
        elif ratio < 0.99:
            text = f"{self.method} also predicts better (squared error × {format_number(ratio, 3)})."
        else:
            text = "Both predict about equally well; their errors lie elsewhere."
        a, b = self.agreement
        return f"{text} Rank correlation of error and regret over instances: {_short(a)} → {_short(b)}."

    def _moved(self) -> str:
        w = self.weights
        assert w is not None
        order = np.argsort(-w.by_feature, kind="stable")[:3]
        most = ", ".join(f"{w.features[j]} ({format_number(float(w.by_feature[j]), 2)})" for j in order)
        text = f"Weights changed by {_short(100 * w.relative)} % in all, most for {most}"
        if not w.exact:
            a, b = (f"{100 * share:.0f} %" for share in w.linear)
            text += f"; these are the linear parts of the predictions, {a} and {b} of their variance"
        return text + "."

    def _steep(self) -> str:
        s = self.sensitivity
        assert s is not None
        if not np.abs(s.matrix).max(initial=0.0) > 0:
            return (
                f"At instance {s.instance} the decision does not move with small changes of the "
                "prediction: it "
                "jumps from vertex to vertex, so an exact derivative is zero and surrogates are what trains."
            )
        i, j = np.unravel_index(int(np.abs(s.matrix).argmax()), s.matrix.shape)
        return (
            f"At instance {s.instance} the decision answers most in {s.variables[i]} to {s.parameters[j]}: "
            f"{signed(float(s.matrix[i, j]))} for one unit more."
        )

    def __str__(self) -> str:
        lines = [f"Why {self.method} decides otherwise than {self.baseline}"]
        lines += [f"- {heading}: {text}" for heading, text in self.sentences]
        return "\n".join(lines)


def explain(
    data: ComparisonData,
    method: str | None = None,
    *,
    predictors: tuple[Any, Any] | None = None,
    test: Dataset | None = None,
    layer: DecisionLayer | None = None,
) -> Explanation:
    """Why a method decides otherwise than the baseline.

    Arguments:
        data: the comparison.
        method: default: the best.
        predictors: of baseline and method, first seed.
        test: the test data of the first seed, for its features.
        layer: for the sensitivity.
    Raises:
        ModelError: the method is not compared with the baseline.
    """
    method = data.best if method is None else method
    if method not in data.challengers:
        raise ModelError(f"explain needs one of the methods {data.challengers}, got {method!r}")
    base, ours = data.runs[data.baseline][0].evaluation, data.runs[method][0].evaluation
    pairs = zip(data.regrets(data.baseline), data.regrets(method), strict=True)
    differences = [b - o for b, o in pairs]
    gains = np.mean(differences, axis=0) if data.shared_test else differences[0]
    spread = deviation(flat(base.true, base.predicted))
    standardized = [(flat(e.predicted) - flat(e.true, e.predicted)) / spread for e in (base, ours)]
    errors = [np.sqrt((s**2).mean(axis=1)) for s in standardized]
    missing: dict[str, str] = {}
    weights = sensitivity = None
    if predictors is None or test is None:
        missing["weights"] = "Not shown: the predictors are not at hand."
    else:
        weights = weight_change(predictors, (base, ours), test)
    if layer is None:
        missing["sensitivity"] = "Not shown: the layer is not at hand."
    else:
        good = np.flatnonzero(np.isfinite(gains))
        at = int(good[np.argmax(gains[good])]) if len(good) else 0
        found = sensitivity_at(layer, ours, at)
        if isinstance(found, str):
            missing["sensitivity"] = found
        else:
            sensitivity = found
    return Explanation(
        method=method,
        baseline=data.baseline,
        verdict=data.verdict(method),
        gain=data.gain(method),
        gains=gains,
        errors=(errors[0], errors[1]),
        regrets=(base.regret, ours.regret),
        mse=(float(np.nanmean(standardized[0] ** 2)), float(np.nanmean(standardized[1] ** 2))),
        calibration=(calibration(base), calibration(ours)),
        changed=_changed(base, ours),
        optimal=(base.equal_decisions, ours.equal_decisions),
        weights=weights,
        sensitivity=sensitivity,
        missing=missing,
        unit=data.unit,
    )


def _changed(base: Evaluation, ours: Evaluation) -> float:
    names = base.decisions.keys() & ours.decisions.keys()
    if not names:
        return float("nan")
    equal = equal_decisions({n: ours.decisions[n] for n in names}, {n: base.decisions[n] for n in names})
    kept = equal[np.isfinite(equal)]
    return 1.0 - float(kept.mean()) if len(kept) else float("nan")


def _short(value: float) -> str:
    return format_number(value, 2)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + format_number(value, 2)
