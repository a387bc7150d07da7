"""An epoch of SPO+ against PyEPO without a licence: grid shortest path, knapsack, traveling salesman.

    python -m benchmarks.epochs [--repeat 7] [--out benchmarks/tables]

Both sides train the same linear predictor on the same draws (seed 42, degree 4, noise ½) with Adam at 1e-2
and batches of 32, on one thread; labels are computed beforehand and not counted.

    grid 5 × 5              1,000 samples    PyEPO: OR-Tools, GLOP
    knapsack, 32 items × 2  1,000 samples    PyEPO: OR-Tools, SCIP
    tour of 20 cities       32 samples       PyEPO: Pyomo, HiGHS (Gavish-Graves formulation)

Times are medians over epochs after a first one, which compiles here and builds there; epochs of the two sides
alternate. Beside them stand the largest relative difference between the two sides' optimal values over the
training samples, and the test regret after 20 epochs from zero weights (not for the tour).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import decigrad as dg  # noqa: E402
from decigrad import problems  # noqa: E402

EPOCHS = 20


@dataclass(frozen=True)
class Row:
    """One comparison: the problem on both sides, its draws, and the number of epochs trained for regret."""

    name: str
    layer: Callable[[], dg.DecisionLayer]
    peer: Callable[[], Any]
    target: str
    samples: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]
    train: int = 1000
    test: int = 1000


def peer_path() -> Any:
    from pyepo.model.ort import shortestPathModel

    return shortestPathModel((5, 5), solver="glop")


def peer_knapsack() -> Any:
    from pyepo.model.ort import knapsackModel

    return knapsackModel(problems.knapsack_weights(42), [20.0, 20.0], solver="scip")


def peer_tsp() -> Any:
    from pyepo.model.omo import tspGGModel

    return tspGGModel(20, solver="appsi_highs")


ROWS = (
    Row("grid", problems.shortest_path_layer, peer_path, "cost", problems.shortest_path_samples),
    Row(
        "knapsack",
        lambda: problems.knapsack_layer(problems.knapsack_weights(42), 20.0),
        peer_knapsack,
        "value",
        problems.knapsack_samples,
    ),
    Row("tour", problems.tsp_layer, peer_tsp, "cost", problems.tsp_samples, train=32, test=0),
)


def peer_epochs(model: Any, x: np.ndarray, c: np.ndarray) -> Iterator[tuple[float, Any]]:
    """Seconds of each epoch of PyEPO's SPO+, and its predictor as it stands; first its labels' values."""
    import pyepo
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = pyepo.data.dataset.optDataset(model, x, c)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    network = torch.nn.Linear(x.shape[1], c.shape[1])
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)
    loss = pyepo.func.SPOPlus(model, processes=1)
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    yield 0.0, np.asarray(data.objs, float).reshape(-1)
    while True:
        began = time.perf_counter()
        for features, cost, decision, value in loader:
            adam.zero_grad()
            loss(network(features), cost, decision, value).backward()
            adam.step()
        yield time.perf_counter() - began, network


def own_epochs(layer: dg.DecisionLayer, data: dg.Dataset) -> Iterator[float]:
    """Seconds of each epoch of ours."""
    from decigrad.compiled import float64
    from decigrad.predictors import initialized
    from decigrad.steps import adam
    from decigrad.trainer import Trainer

    with float64():
        start = initialized(dg.Linear(standardize=False), layer, data, 0)
        trainer = Trainer(start, layer, dg.losses.SPOPlus(), data, adam(0.01), 32)
        lanes = trainer.lanes([start], [np.arange(len(data))], np.zeros(1), np.zeros(1))
    rng = np.random.default_rng(0)
    while True:
        with float64():
            began = time.perf_counter()
            trainer.epoch(lanes, rng)
            seconds = time.perf_counter() - began
        yield seconds


def measure(row: Row, repeat: int) -> dict[str, Any]:
    """One row of the table."""
    x, c, _ = row.samples(row.train + row.test, 42, degree=4)
    train = dg.Dataset(x[: row.train], targets={row.target: c[: row.train]})
    layer, model = row.layer(), row.peer()
    peer = peer_epochs(model, x[: row.train], c[: row.train])
    _, values = next(peer)
    best = layer.solve(train.parameters).objective
    apart = float(np.abs(values - best).max() / np.abs(best).max())
    ours = own_epochs(layer, train)
    next(ours)
    _, network = next(peer)
    times = [(next(ours), next(peer)[0]) for _ in range(repeat)]
    own, theirs = (float(np.median(side)) for side in zip(*times, strict=True))
    found = {"name": row.name, "samples": row.train, "own": own, "peer": theirs, "apart": apart}
    if row.test:
        test = dg.Dataset(x[row.train :], targets={row.target: c[row.train :]})
        for _ in range(EPOCHS - repeat - 1):
            next(peer)
        predicted = test.features @ network.weight.detach().numpy().T + network.bias.detach().numpy()
        trained = dg.fit(
            dg.Linear(standardize=False), layer, train, loss=dg.losses.SPOPlus(), selection=None,
            epochs=EPOCHS, warm_start=False, averaging=False, progress=False,
        )  # fmt: skip
        found["own regret"] = 100.0 * dg.evaluate(trained.predictor, layer, test).normalized_regret
        optimum = layer.solve(test.parameters).objective
        decided = layer.solve({row.target: predicted}).x
        regret = layer.sign * (np.asarray(layer.objective(decided, test.parameters)) - optimum)
        found["peer regret"] = float(100.0 * regret.sum() / np.abs(optimum).sum())
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| problem | samples | decigrad, s | PyEPO, s | times faster | values apart | regret, % (PyEPO) |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        regret = f"{r['own regret']:.2f} ({r['peer regret']:.2f})" if "own regret" in r else ""
        lines.append(
            f"| {r['name']} | {r['samples']:,} | {r['own']:.4f} | {r['peer']:.3f} | "
            f"{r['peer'] / r['own']:.0f} | {r['apart']:.0e} | {regret} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all rows and write `epochs.md` and `epochs.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    rows = []
    for row in ROWS:
        if not options.rows or row.name in options.rows:
            rows.append(measure(row, options.repeat if row.test else min(3, options.repeat)))
            print(table(rows[-1:]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    text = f"# An epoch of SPO+ beside PyEPO\n\n{(__doc__ or '').strip()}\n\n{table(rows)}"
    (options.out / "epochs.md").write_text(text, encoding="utf-8")
    (options.out / "epochs.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
