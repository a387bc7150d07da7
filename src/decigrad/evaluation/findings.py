"""What a diagnosis found: numbers with errors, a sentence for each, and a verdict by stated rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation._rules import CLEAR, NEGLIGIBLE, OUTLOOKS, WORTH
from decigrad.evaluation._structure import NoiseTest
from decigrad.evaluation.learning import LearningCurve
from decigrad.evaluation.metrics import Evaluation, plain
from decigrad.evaluation.statistics import Estimate, format_estimate, format_number, mean_and_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """One statement: a number with its standard error, and what it means in a sentence."""

    name: str
    number: Estimate
    unit: str
    text: str

    @property
    def shown(self) -> str:
        """The number as text, with its error and unit; "–" where there is none."""
        if not np.isfinite(self.number.mean):
            return "–"
        value = format_estimate(self.number.mean, self.number.error)
        return f"{value} {self.unit}".strip()


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` measured, on B held-out samples.

    Attributes:
        evaluations: of the predictions "constant" (the mean of the targets), "two-stage" and "flexible".
        weights: [B] of the samples in all means.
        noise: the noise test of the flexible predictor's errors.
        floors: [3, B] regret at the estimated noise floor, and with the share of noise moved by its error
            down and up; None where the objective is not affine in the predicted parameters.
        corrected: [B] regret of two-stage after a constant correction; None where the objective is affine.
        changed, moved: [B] share of errors that change the decision, and what such an error costs on average
            if the prediction were true.
        learning: the learning curve of two-stage.
        predictor, flexible, folds, unit: what was tried, for the text.
    """

    evaluations: dict[str, Evaluation]
    weights: np.ndarray
    noise: NoiseTest
    floors: np.ndarray | None
    corrected: np.ndarray | None
    changed: np.ndarray
    moved: np.ndarray
    learning: LearningCurve
    predictor: str
    flexible: str
    folds: int
    unit: str = ""

    # ------------------------------------------------------------------------------------- numbers

    def regret(self, name: str) -> Estimate:
        """Mean held-out regret of "constant", "two-stage", "flexible", "corrected" or "floor"."""
        found = mean_and_error(self._values(name), self.weights)
        if name != "floor" or self.floors is None:
            return found
        ends = [mean_and_error(row, self.weights).mean for row in self.floors[1:]]
        # The error of the share of noise moves the floor as a whole.
        error = float(np.hypot(found.error, 0.5 * abs(ends[1] - ends[0])))
        return Estimate(found.mean, error, found.n)

    def saving(self, worse: str, better: str) -> Estimate:
        """Mean regret of one minus that of the other, paired by sample."""
        found = mean_and_error(self._values(worse) - self._values(better), self.weights)
        if better != "floor" or self.floors is None:
            return found
        ends = [mean_and_error(row, self.weights).mean for row in self.floors[1:]]
        return Estimate(found.mean, float(np.hypot(found.error, 0.5 * abs(ends[1] - ends[0]))), found.n)

    def _values(self, name: str) -> np.ndarray:
        if name in self.evaluations:
            return self.evaluations[name].regret
        nothing = np.full(len(self.weights), np.nan)
        if name == "floor":
            return nothing if self.floors is None else self.floors[0]
        if name == "corrected":
            return nothing if self.corrected is None else self.corrected
        raise ValueError(f"there is no regret of {name!r}")

    @cached_property
    def scale(self) -> float:
        """Mean absolute optimal value."""
        return mean_and_error(np.abs(self.evaluations["two-stage"].optimal_value), self.weights).mean

    @property
    def failed(self) -> int:
        """Samples that could not be decided by the two-stage or flexible prediction; left out of means."""
        bad = [set(self.evaluations[name].failed.tolist()) for name in ("two-stage", "flexible")]
        return len(bad[0] | bad[1])

    # ------------------------------------------------------------------------------------- verdict

    @cached_property
    def outlook(self) -> str:
        """ "gain", "none" or "unclear"; by the first of these rules that applies.

        1. none: two-stage regret, with `CLEAR` standard errors on top, is below `NEGLIGIBLE` of the optimal
           values.
        2. gain: a constant correction, or the flexible predictor, saves more than `CLEAR` standard errors and
           more than `WORTH` of the two-stage regret.
        3. The features tell nothing: neither two-stage nor flexible is clearly better than a constant. none,
           if even the upper ends of what they save are below `WORTH` of the constant's regret; else unclear.
        4. none: the upper ends of what the flexible predictor and a correction save are below `WORTH`, and
           the noise test finds no clear structure in the errors, or the floor leaves no more than `WORTH`.
        5. unclear otherwise.
        """
        return self._judgement[0]

    @property
    def verdict(self) -> str:
        """The outlook in plain words, with its reason."""
        return f"{OUTLOOKS[self.outlook]} {self._judgement[1]}"

    @cached_property
    def _judgement(self) -> tuple[str, str]:
        two_stage, constant = self.regret("two-stage"), self.regret("constant")
        show, share = self._amount, self._share
        if _upper(two_stage) <= NEGLIGIBLE * self.scale:
            if _upper(constant) <= NEGLIGIBLE * self.scale:
                why = "the decisions cost about the same whatever is predicted"
            else:
                why = "two-stage decisions are already as good as the best"
            return "none", f"There is nothing to gain, because {why}: mean regret {show(two_stage)}."
        least = WORTH * two_stage.mean
        shifted, flexible = self.saving("two-stage", "corrected"), self.saving("two-stage", "flexible")
        if _clear(shifted) and shifted.mean > least:
            return "gain", (
                f"Moving all two-stage predictions by a constant already saves {show(shifted)} "
                f"({share(shifted)} of the two-stage regret) on held-out samples: a prediction that is "
                "right on "
                "average is not the one to decide by here, and decision-focused training learns the "
                "difference."
            )
        if _clear(flexible) and flexible.mean > least:
            limit = self.saving("two-stage", "floor")
            upto = f"up to about {show(limit)} ({share(limit)} of the two-stage regret)"
            if not np.isfinite(limit.mean):
                upto = "an unknown amount"
            return "gain", (
                f"Decision-focused training may gain {upto}, because {self.predictor} misses structure "
                "that matters to "
                f"the decisions. A more flexible two-stage predictor saves {show(flexible)} "
                f"({share(flexible)}) of it on held-out samples, so try that as well."
            )
        told = [self.saving("constant", name) for name in ("two-stage", "flexible")]
        if not any(_clear(t) for t in told):
            if max(map(_upper, told)) <= WORTH * constant.mean and not max(_upper(shifted), 0.0) > least:
                return "none", (
                    "The features say nothing that would improve the decisions: predicting the mean of the "
                    f"targets for every sample has a regret of {show(constant)}, two-stage {show(two_stage)}."
                )
            return "unclear", (
                "Neither two-stage nor the flexible predictor is clearly better than predicting the mean "
                "of the "
                "targets, and the samples are too few to say that nothing is."
            )
        limit, structure = self.saving("two-stage", "floor"), self.noise.share
        leaves = structure.mean + CLEAR * _known(structure.error) < 1.0 and not limit.mean <= least
        if _upper(flexible) <= least and not _upper(shifted) > least and not leaves:
            return "none", (
                f"A more flexible predictor saves {self._nothing(flexible)} of the two-stage regret of "
                f"{show(two_stage)}: what remains is noise, or needs more samples, and neither changes with "
                "the loss that is trained by."
            )
        if leaves and _upper(flexible) <= least:
            return "unclear", (
                f"The noise test sees structure in the errors (noise is {self._percent(structure)} of "
                "them), but "
                "the flexible predictor does not find it: try another one with flexible=, or more samples."
            )
        return "unclear", (
            f"A more flexible predictor saves {show(flexible)}, too uncertain to say whether it is worth "
            "having. "
            "More samples, or `compare` over several seeds, would tell."
        )

    # ------------------------------------------------------------------------------------- sentences

    @cached_property
    def findings(self) -> list[Finding]:
        """All statements, in the order they are read."""
        return list(self._findings())

    def _findings(self) -> Iterator[Finding]:
        two_stage, constant = self.regret("two-stage"), self.regret("constant")
        show, share = self._amount, self._share
        relative = (
            f" ({format_number(100 * two_stage.mean / self.scale, 3)} % of the best)" if self.scale else ""
        )
        text = f"Deciding by {self.predictor} costs {show(two_stage)} more than the best decision{relative}; "
        text += f"deciding by the mean of the targets, without features, costs {show(constant)} more."
        yield Finding("regret of two-stage", two_stage, self.unit, text)
        noise = self.noise.share
        percent = Estimate(100 * noise.mean, 100 * noise.error, noise.n)
        text = (
            f"About {self._percent(self.noise.share)} of the flexible predictor's error is noise that these "
            "features cannot explain. The estimate errs high where the truth is rough or samples are few."
        )
        yield Finding("noise in the error", percent, "%", text)
        floor = self.regret("floor")
        if self.floors is not None:
            text = (
                f"Noise alone would leave a regret of about {show(floor)} to any predictor with these "
                "features. It errs high as the share of noise does."
            )
        else:
            text = (
                "No floor is known: the objective is not affine in the predicted parameters, so their "
                "mean is "
                "not the best thing to decide by."
            )
        yield Finding("noise floor of regret", floor, self.unit, text)
        changed = mean_and_error(100 * self.changed, self.weights)
        moved = mean_and_error(self.moved, self.weights)
        text = (
            f"{format_estimate(changed.mean, changed.error)} % of decisions change when a prediction "
            "moves by its own error; "
            f"a move costs {show(moved)} on average, were the prediction true."
        )
        if changed.mean > 99.0:
            text += " Where decisions vary smoothly all of them change, and the cost is what counts."
        yield Finding("decisions within the error", changed, "%", text)
        text = (
            f"A prediction moved by its own error leads to a decision that costs {show(moved)} more than the "
            f"one it would have led to ({share(moved)} of the two-stage regret): what is at stake in an "
            "error of that size."
        )
        yield Finding("cost of moves within the error", moved, self.unit, text)
        if self.floors is not None:
            gap = self.saving("two-stage", "floor")
            text = f"A perfect predictor with these features would save about {show(gap)} ({share(gap)})."
            yield Finding("to gain by a perfect predictor", gap, self.unit, text)
        flexible = self.saving("two-stage", "flexible")
        word = "saves" if flexible.mean >= 0 else "loses"
        sure = "clearly" if abs(flexible.mean) > CLEAR * _known(flexible.error) else "within chance"
        size = show(Estimate(abs(flexible.mean), flexible.error, flexible.n))
        text = (
            f"{self.flexible} {word} {size} against two-stage ({sure}): what the shape of "
            f"{self.predictor} costs."
        )
        if not flexible.mean and not flexible.error:
            text = (
                f"{self.flexible} decides as two-stage does: it finds nothing that {self.predictor} misses."
            )
        yield Finding("to gain by a flexible predictor", flexible, self.unit, text)
        if self.corrected is not None:
            shifted = self.saving("two-stage", "corrected")
            text = f"Moving all predictions by a constant saves {show(shifted)} ({share(shifted)})."
            yield Finding("to gain by a constant correction", shifted, self.unit, text)
        yield Finding("to gain by more samples", self.learning.excess, self.unit, self.learning.text)

    def _amount(self, e: Estimate) -> str:
        value = format_estimate(e.mean, e.error)
        return f"{value} {self.unit}" if self.unit else value

    def _share(self, e: Estimate, errors: float = 0.0) -> str:
        """In percent of the two-stage regret, with so many standard errors on top."""
        whole = self.regret("two-stage").mean
        part = e.mean + errors * _known(e.error)
        return f"{format_number(100 * part / whole, 2)} %" if whole > 0 else "–"

    def _nothing(self, e: Estimate) -> str:
        return f"at most {self._share(e, CLEAR)}" if _upper(e) > 0 else "nothing"

    @staticmethod
    def _percent(e: Estimate) -> str:
        return f"{format_estimate(100 * e.mean, 100 * e.error)} %"

    # ------------------------------------------------------------------------------------- shown

    def __str__(self) -> str:
        lines = [f"Will decision-focused training help? {self.verdict}", ""]
        lines += [f"- {f.name}: {f.shown}. {f.text}" for f in self.findings]
        if self.failed:
            lines.append(f"- {self.failed} samples could not be decided and are left out.")
        lines.append(
            f"\n{len(self.weights)} samples, each held out in one of {self.folds} folds; ± is one "
            "standard error."
        )
        return "\n".join(lines)

    def table(self) -> Table:
        """A Rich table of the findings."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("finding", title=escape(self.verdict))
        table.add_column("number", justify="right", no_wrap=True)
        table.add_column("in words")
        for f in self.findings:
            table.add_row(escape(f.name), escape(f.shown), escape(f.text))
        return table

    def figures(self) -> list[tuple[Figure, str]]:
        """A picture for each group of findings, with its caption."""
        from decigrad.evaluation.diagnosis_report import diagnosis_figures

        return diagnosis_figures(self)

    def to_html(self, path: str | Path, *, title: str = "Will it help me?", date: str | None = None) -> Path:
        """Write one self-contained HTML page; `date` as for `Report`."""
        from decigrad.evaluation.diagnosis_report import build_diagnosis_report

        return build_diagnosis_report(self, title, date=date).write(path)

    def as_dict(self) -> dict[str, Any]:
        """Verdict and findings as plain values, for JSON; what is not known is None."""
        found = [
            {
                "name": f.name,
                "value": f.number.mean,
                "standard_error": f.number.error,
                "unit": f.unit,
                "text": f.text,
            }
            for f in self.findings
        ]
        curve = self.learning
        return plain(
            {
                "outlook": self.outlook,
                "verdict": self.verdict,
                "findings": found,
                "regret": {
                    name: self.regret(name).mean for name in (*self.evaluations, "corrected", "floor")
                },
                "samples_needed": {
                    "verdict": curve.verdict,
                    "estimate": curve.needed,
                    "low": curve.low,
                    "high": curve.high,
                },
                "learning_curve": {
                    "sizes": curve.sizes,
                    "regret": [e.mean for e in curve.regret],
                    "standard_error": [e.error for e in curve.regret],
                },
                "samples": len(self.weights),
                "failed": self.failed,
                "folds": self.folds,
                "predictor": self.predictor,
                "flexible": self.flexible,
            }
        )


def _known(error: float) -> float:
    return error if np.isfinite(error) else 0.0


def _upper(e: Estimate) -> float:
    return e.mean + CLEAR * _known(e.error)


def _clear(e: Estimate) -> bool:
    """Positive beyond chance."""
    return bool(np.isfinite(e.error) and e.mean > CLEAR * e.error and e.mean > 0)
