"""A training step with warm starts beside the same step with cold ones: battery and portfolio.

    python -m benchmarks.warm_starts [--data FOLDER] [--epochs 5] [--repeat 5]

Both trainings draw the same batches of 32 from the same first weights; they differ in where the solver
starts. A step is predict, solve, differentiate and update; its cost is that of an epoch from the second one
on, divided by its steps, the median over repetitions that alternate between the two. After every epoch each
sample is solved both ways at the predictions of that epoch; the largest difference of the decisions is kept.

The battery needs `storage/storage_data.csv` in FOLDER; the portfolio, the extra `datasets`.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np  # noqa: E402 - after the environment

import decigrad as dg  # noqa: E402
from decigrad import warm  # noqa: E402
from decigrad.predictors import outputs_of, predict  # noqa: E402
from decigrad.problems import battery, portfolio  # noqa: E402
from decigrad.solvers import ActiveSet  # noqa: E402

OUT = Path(__file__).parent / "tables" / "warm_starts.json"
BATCH = 32


@dataclass(frozen=True)
class Case:
    """A training from least squares by regret."""

    layer: dg.DecisionLayer
    data: dg.Dataset
    recipe: Any
    rate: float

    def trained(self, epochs: int, cold: bool) -> Any:
        """The fit, with room for warm starts or without."""
        room, warm.LARGEST = warm.LARGEST, 0 if cold else warm.LARGEST
        try:
            return dg.fit(
                self.recipe, self.layer, self.data, dg.losses.Regret(), seed=0, selection=None, epochs=epochs,
                batch_size=BATCH, learning_rate=self.rate, averaging=False, progress=False,
            )  # fmt: skip
        finally:
            warm.LARGEST = room

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.data) // BATCH)


def battery_case(data: Path) -> Case:
    """The battery over all days, one thread."""
    days = battery.load_battery_days(data / "storage" / "storage_data.csv")
    (days,) = battery.standardized(days)
    layer = dg.DecisionLayer(battery.battery_model(), solver=ActiveSet(threads=1))
    return Case(layer, dg.Dataset(days.features, {"log_price": days.log_prices}), dg.Linear(), 1e-3)


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
        model = case.trained(count, cold=False).predictor
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
    """Milliseconds of a step, warm and cold, and how far the decisions are apart."""
    for cold in (True, False):  # compilation
        case.trained(2, cold)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeat):
        for cold, kept in times.items():
            kept += case.trained(epochs, cold).epoch_seconds[1:]
    step = {cold: 1e3 * float(np.median(kept)) / case.steps for cold, kept in times.items()}
    worst, changed = apart(case, epochs)
    program = case.layer.programs({n: v[:1] for n, v in case.data.parameters.items()})[0]
    return {
        "samples": len(case.data), "variables": program.n,
        "rows": program.num_equalities + program.num_inequalities, "warm_ms": step[False],
        "cold_ms": step[True], "ratio": step[True] / step[False], "changed": changed, "apart": worst,
    }  # fmt: skip


def main() -> None:
    """Measure what the data allow, print it, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    found = {}
    for name, make in CASES.items():
        try:
            case = make(asked.data)
        except (FileNotFoundError, ImportError) as missing:
            print(f"{name}: left out ({missing})")
            continue
        found[name] = one = measured(case, asked.epochs, asked.repeat)
        print(
            f"{name}: a step takes {one['warm_ms']:.2f} ms warm, {one['cold_ms']:.2f} ms cold "
            f"({one['ratio']:.1f}x); {one['changed']:.0%} of samples change their set from epoch to epoch; "
            f"decisions agree to {one['apart']:.0e}",
            flush=True,
        )
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
