"""A training step with warm starts beside the same step with cold ones: battery and portfolio.

    python -m benchmarks.warm_starts [--data FOLDER] [--epochs 5] [--repeat 5]

The trainings draw the same batches of 32 from the same first weights, at the rates of `decigrad study`; they
differ in where the compiled core starts, and a third one has DAQP, which always starts cold. A step is
predict, solve, differentiate and update; its cost is that of an epoch from the second one on, divided by its
steps, the median over repetitions that alternate between the three. After every epoch each sample is solved
warm and cold at the predictions of that epoch; the largest difference of the decisions is kept.

The battery needs `storage/storage_data.csv` in FOLDER; the portfolio, the extra `datasets`.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np  # noqa: E402 - after the environment

import decigrad as dg  # noqa: E402
from benchmarks import harness  # noqa: E402
from decigrad import warm  # noqa: E402
from decigrad.predictors import outputs_of, predict  # noqa: E402
from decigrad.problems import battery, portfolio  # noqa: E402
from decigrad.solvers import ActiveSet  # noqa: E402

BATCH = 32


@dataclass(frozen=True)
class Case:
    """A training from least squares by regret."""

    layer: dg.DecisionLayer
    data: dg.Dataset
    recipe: Any
    rate: float

    def trained(self, epochs: int, way: str = "warm") -> Any:
        """The fit: "warm", "cold" (no room for active sets), or by "daqp"."""
        room, warm.LARGEST = warm.LARGEST, warm.LARGEST if way == "warm" else 0
        layer = self.by_daqp if way == "daqp" else self.layer
        try:
            return dg.fit(
                self.recipe, layer, self.data, dg.losses.Regret(), seed=0, selection=None, epochs=epochs,
                batch_size=BATCH, learning_rate=self.rate, averaging=False, progress=False,
            )  # fmt: skip
        finally:
            warm.LARGEST = room

    @cached_property
    def by_daqp(self) -> dg.DecisionLayer:
        """The same layer with DAQP."""
        return dg.DecisionLayer(self.layer.model, predicts=self.layer.predicts, solver="daqp")

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.data) // BATCH)


def battery_case(data: Path) -> Case:
    """The battery over all days, one thread."""
    days = battery.load_battery_days(data / "storage" / "storage_data.csv")
    (days,) = battery.standardized(days)
    layer = dg.DecisionLayer(battery.battery_model(), solver=ActiveSet(threads=1))
    return Case(layer, dg.Dataset(days.features, {"log_price": days.log_prices}), dg.Linear(), 2e-5)


def portfolio_case(_: Path) -> Case:
    """Weekly weights of S&P 500 stocks: see `decigrad study portfolio`; one thread."""
    dates, tickers, prices = portfolio.load_sp500_prices()
    periods = portfolio.portfolio_periods(dates, prices, tickers)
    covariance = portfolio.past_covariance(prices, int(periods.day[-1]) + 5)
    layer = dg.DecisionLayer(
        portfolio.portfolio_model(covariance), predicts=["returns"], solver=ActiveSet(threads=1)
    )
    known = {"previous": periods.previous}
    data = dg.Dataset(periods.features, {"returns": periods.returns}, known=known)
    return Case(layer, data, dg.Linear(standardize=False, shared=True), 0.01)


CASES = {"battery": battery_case, "portfolio": portfolio_case}


def apart(case: Case, epochs: int) -> tuple[float, float]:
    """Between decisions from the last epoch's sets and cold ones, over all samples: the largest difference;
    and the share of samples that change their set from one epoch to the next."""
    worst, changed, start = 0.0, [], None
    for count in range(1, epochs + 1):
        model = case.trained(count).predictor
        query = predict(model, case.data.features, outputs_of(case.layer)) | case.data.known
        cold = case.layer.solve(query)
        if start is not None:
            found = case.layer.solve(query, start=start)
            worst = max(worst, float(np.abs(found.raw.x - cold.raw.x).max()))
            same = (found.raw.fixed == start.fixed).all(1) & (found.raw.active == start.active).all(1)
            changed.append(1.0 - float(same.mean()))
        start = cold.raw
    return worst, float(np.mean(changed))


def measured(case: Case, epochs: int, repeat: int) -> dict[str, Any]:
    """Milliseconds of a step, warm, cold and by DAQP, and how far the decisions are apart."""
    times: dict[str, list[float]] = {"warm": [], "cold": [], "daqp": []}
    for way in times:  # compilation
        case.trained(2, way)
    for _ in range(repeat):
        for way, kept in times.items():
            kept += case.trained(epochs, way).epoch_seconds[1:]
    step = {f"{way}_ms": 1e3 * float(np.median(kept)) / case.steps for way, kept in times.items()}
    worst, changed = apart(case, epochs)
    program = case.layer.programs({n: v[:1] for n, v in case.data.parameters.items()})[0]
    return {
        "samples": len(case.data), "variables": program.n,
        "rows": program.num_equalities + program.num_inequalities, **step, "changed": changed, "apart": worst,
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    head = (
        "problem", "variables, rows", "warm, ms", "cold, ms", "times faster", "DAQP, ms", "times faster",
        "samples that change their set", "decisions apart",
    )  # fmt: skip
    rows = [
        [
            name, f"{one['variables']}, {one['rows']}", f"{one['warm_ms']:.2f}", f"{one['cold_ms']:.2f}",
            f"{one['cold_ms'] / one['warm_ms']:.1f}", f"{one['daqp_ms']:.1f}",
            f"{one['daqp_ms'] / one['warm_ms']:.1f}", f"{one['changed']:.0%}", f"{one['apart']:.0e}",
        ]
        for name, one in found.items()
    ]  # fmt: skip
    return harness.markdown(head, rows)


def main() -> None:
    """Measure what the data allow, print it, write it beside what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    kept = harness.TABLES / "warm_starts.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name, make in CASES.items():
        try:
            case = make(asked.data)
        except (FileNotFoundError, ImportError) as missing:
            print(f"{name}: left out ({missing})")
            continue
        found[name] = measured(case, asked.epochs, asked.repeat)
    text = table(found)
    print(text)
    about = harness.described(harness.versions(("jax", "numpy", "daqp", "decigrad")))
    parts = [f"# {(__doc__ or '').strip()}", about, harness.BEGIN, text, harness.END]
    harness.save(harness.TABLES, "warm_starts", "\n\n".join(parts), found)


if __name__ == "__main__":
    main()
