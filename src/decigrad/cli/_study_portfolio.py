"""`decigrad study portfolio`: weekly portfolios of real stocks, two-stage against decision-focused."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import decigrad as dg
from decigrad.cli._study_output import Study, Table, interval_text, joined
from decigrad.cli._study_training import DecisionTraining, weight_text
from decigrad.evaluation.comparison import ComparisonData, Run
from decigrad.evaluation.metrics import Evaluation
from decigrad.evaluation.statistics import paired_bootstrap
from decigrad.predictors import outputs_of
from decigrad.problems import portfolio

GAMMA, KAPPA, IMPACT, CAP = 5.0, 0.1, 0.5, 0.2
BLOCK = 13  # weeks kept together by the bootstrap: a quarter
YEAR = portfolio.TRADING_DAYS
METHODS = ("two-stage", "mse", "regret")
SHARED = dg.Linear(standardize=False, shared=True)
"""One weight for each feature, shared by all stocks. With some hundred weeks and a signal of one percent of
the variance, a weight for each pair of stock and feature is noise; k weights are what the data can carry."""


@dataclass(frozen=True)
class Plan:
    """Sizes of the study, in periods where nothing else is said."""

    days: int = 5
    train: int = 520
    test: int = 208
    gap: int = 1
    epochs: int = 6
    blocks: int | None = None
    """Walk-forward steps at most, counted from the last one; None: all."""


QUICK = Plan(train=260, test=52, epochs=2, blocks=1)


@dataclass(frozen=True)
class Step:
    """One walk-forward step: its data, its layer, and the evaluations by method and seed."""

    train: portfolio.PortfolioPeriods
    test: portfolio.PortfolioPeriods
    layer: dg.DecisionLayer
    evaluations: dict[str, list[Evaluation]]
    seconds: dict[str, list[float]]
    chosen: list[float]
    references: dict[str, Evaluation]


def run_portfolio(seeds: int = 5, report: Path | None = None, quick: bool = False) -> Study:
    """Run the study on the S&P 500 set, print it, and write it where `report` says.

    Arguments:
        seeds: how often training is repeated; a seed shuffles the samples.
        report: path of the HTML page; JSON and Markdown are written beside it. None: terminal only.
        quick: one test year, two seeds at most, few epochs.

    Raises:
        ImportError: the extra `datasets` is not installed.
    """
    plan = QUICK if quick else Plan()
    dates, tickers, prices = portfolio.load_sp500_prices()
    periods = portfolio.portfolio_periods(dates, prices, tickers, days=plan.days)
    with jax.enable_x64(True):
        study = study_portfolio(periods, prices, plan, range(min(seeds, 2) if quick else seeds))
    return study.publish(f"decigrad study portfolio --seeds {seeds}", report, quick)


def study_portfolio(
    periods: portfolio.PortfolioPeriods, prices: np.ndarray, plan: Plan, seeds: range
) -> Study:
    """The study on any periods cut from `prices`; see `run_portfolio`."""
    folds = list(dg.walk_forward(periods, train=plan.train, test=plan.test, gap=plan.gap))
    folds = folds if plan.blocks is None else folds[-plan.blocks :]
    steps = [_step(train, test, prices, plan, seeds) for train, test in folds]
    runs = {
        method: [
            Run(
                seed=seed,
                evaluation=joined([step.evaluations[method][i] for step in steps]),
                seconds_fit=sum(step.seconds[method][i] for step in steps),
            )
            for i, seed in enumerate(seeds)
        ]
        for method in METHODS
    }
    data = ComparisonData(
        runs, unit="% per week", block=BLOCK, settings=_settings(periods, steps, plan), notes=list(_NOTES)
    )
    tables = [_economics(steps, data), _references(steps, data), _blocks(steps)]
    return Study("Weekly portfolios of S&P 500 stocks", "", {"portfolio": data}, tables)


# ------------------------------------------------------------------------------------------------ training


def _step(
    train: portfolio.PortfolioPeriods,
    test: portfolio.PortfolioPeriods,
    prices: np.ndarray,
    plan: Plan,
    seeds: range,
) -> Step:
    # The last training return is known only at the end of its period: that is where the covariance ends too.
    covariance = portfolio.past_covariance(prices, int(train.day[-1]) + plan.days, days=plan.days)
    model = portfolio.portfolio_model(covariance, gamma=GAMMA, kappa=KAPPA, impact=IMPACT, cap=CAP)
    layer = dg.DecisionLayer(model, predicts=["returns"], solver="daqp")
    data, unseen = _dataset(train), _dataset(test)
    evaluations: dict[str, list[Evaluation]] = {method: [] for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    chosen = []
    for seed in seeds:
        for method in METHODS:
            start = time.perf_counter()
            predictor, weight = _fitted(method, layer, data, plan, seed)
            seconds[method].append(time.perf_counter() - start)
            evaluations[method].append(dg.evaluate(predictor, layer, unseen, name=method))
            if method == "regret":
                chosen.append(weight)
    references = {
        "no forecast": SHARED.init(data, outputs_of(layer)),  # it starts at zero
        "historical mean": _Constant(jnp.asarray(train.returns.mean(axis=0))),
    }
    judged = {name: dg.evaluate(p, layer, unseen, name=name) for name, p in references.items()}
    return Step(train, test, layer, evaluations, seconds, chosen, judged)


def _fitted(
    method: str, layer: dg.DecisionLayer, data: dg.Dataset, plan: Plan, seed: int
) -> tuple[object, float]:
    """The predictor, and the proximal weight that was chosen for it (infinite: two-stage was kept)."""

    def two_stage(samples: dg.Dataset) -> Any:
        return dg.fit(SHARED, layer, samples, "two-stage").predictor

    if method == "two-stage":
        return two_stage(data), np.inf
    if method == "mse":
        loss, epochs = dg.losses.MSE(), 3 * plan.epochs
        return dg.fit(SHARED, layer, data, loss, seed=seed, selection=None, epochs=epochs).predictor, np.inf
    training = DecisionTraining(weights=(1.0, 30.0), epochs=plan.epochs, learning_rate=0.01)
    return training(two_stage, layer, data, seed)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Constant:
    """The same returns whatever the features."""

    returns: jax.Array

    def __call__(self, features: jax.Array) -> dict[str, jax.Array]:
        return {"returns": self.returns}


def _dataset(periods: portfolio.PortfolioPeriods) -> dg.Dataset:
    return dg.Dataset(periods.features, {"returns": periods.returns}, known={"previous": periods.previous})


# ------------------------------------------------------------------------------------------------- reading


def _weekly(step: Step, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Net return, turnover and certainty equivalent of each test week, in percent."""
    trades = np.abs(weights - step.test.previous)
    net = (weights * step.test.returns).sum(1) - KAPPA * trades.sum(1) - IMPACT * (trades**2).sum(1)
    decisions = {"weights": weights, "trades": trades}
    truth = {"returns": step.test.returns, "previous": step.test.previous}
    return net, trades.sum(1), -np.asarray(step.layer.objective(decisions, truth))


def _all_weeks(steps: list[Step], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_weekly`, over all steps; the mean over seeds where training is random."""
    parts = []
    for step in steps:
        if name == "equal weights":
            found = [np.full_like(step.test.previous, 1.0 / step.test.previous.shape[1])]
        elif name in step.references:
            found = [step.references[name].decisions["weights"]]
        else:
            found = [e.decisions["weights"] for e in step.evaluations[name]]
        parts.append(np.mean([_weekly(step, w) for w in found], axis=0))
    net, turnover, certainty = np.concatenate(parts, axis=1)
    return net, turnover, certainty


def _economics(steps: list[Step], data: ComparisonData) -> Table:
    per_year = YEAR / steps[0].test.days
    rows = []
    for name in (*data.methods, *steps[0].references, "equal weights"):
        net, turnover, certainty = _all_weeks(steps, name)
        volatility = net.std(ddof=1) * np.sqrt(per_year)
        mean = net.mean() * per_year
        row = [name, mean, volatility, mean / volatility, 100 * turnover.mean(), certainty.mean() * per_year]
        rows.append([row[0], *(f"{value:.2f}" for value in row[1:])])
    headers = [
        "method",
        "net return, %/year",
        "volatility, %/year",
        "ratio",
        "turnover, %/week",
        "certainty eq., %/year",
    ]
    return Table("Economics on the test weeks (mean over seeds)", headers, rows)


def _references(steps: list[Step], data: ComparisonData) -> Table:
    rows = []
    regret = {m: np.mean([r.evaluation.regret for r in data.runs[m]], axis=0) for m in data.methods}
    for name in steps[0].references:
        theirs = np.concatenate([step.references[name].regret for step in steps])
        row = [name, f"{theirs.mean():.4f}"]
        row += [
            interval_text(paired_bootstrap(regret[m], theirs, block=BLOCK)) for m in ("two-stage", "regret")
        ]
        rows.append(row)
    headers = ["reference", "regret, % per week", "less regret than two-stage [95 %]", "than regret [95 %]"]
    return Table("References that use no features", headers, rows)


def _blocks(steps: list[Step]) -> Table:
    rows = []
    for step in steps:
        means = [np.mean([e.regret.mean() for e in step.evaluations[m]]) for m in METHODS]
        weights = ", ".join(weight_text(w) for w in step.chosen)
        span = f"{step.test.dates[0]} to {step.test.dates[-1]}"
        rows.append([span, str(len(step.test)), *(f"{v:.4f}" for v in means), weights])
    headers = ["test block", "weeks", *(f"{m}: regret" for m in METHODS), "proximal weight by seed"]
    return Table("Walk-forward steps", headers, rows)


def _settings(periods: portfolio.PortfolioPeriods, steps: list[Step], plan: Plan) -> dict[str, object]:
    return {
        "stocks": len(periods.tickers),
        "test weeks": sum(len(step.test) for step in steps),
        "test span": f"{steps[0].test.dates[0]} to {steps[-1].test.dates[-1]}",
        "training window": f"{plan.train} weeks, then a gap of {plan.gap}",
        "features": ", ".join(periods.names),
        "risk aversion γ": GAMMA,
        "turnover cost κ": f"{KAPPA} % of the amount traded",
        "market impact η": f"{IMPACT} % per squared share of wealth",
        "cap": CAP,
        "covariance": f"3 factors and a diagonal, from the last {2 * YEAR} days of the training window",
        "predictor": "one weight per feature, shared by all stocks",
        "selection": f"by the last fifth of the training window; {plan.epochs} epochs",
        "solver": steps[0].layer.why,
    }


_NOTES = (
    "Regret compares with a trader who knows next week's returns, so it is large for every method; only "
    "differences between methods mean something.",
    "Turnover is counted from an equally weighted benchmark that has drifted for a week: a known state that "
    "does not depend on anyone's decisions.",
    "The stocks were chosen with hindsight (they survived); absolute returns are not achievable ones.",
    "`mse` is the same predictor trained by gradient on the squared error; it shows what the training "
    "procedure alone does.",
    "The test weeks are not untouched: holding period and risk aversion were settled after a look at three "
    "settings on them, for least squares and the references only.",
)
