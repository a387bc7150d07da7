"""What more worker processes bring: whole trainings, labels, and the solves of one training.

    python -m benchmarks.executors [--workers 1 2] [--repeat 3] [--out benchmarks/tables]

    compare     shortest paths on a 5 × 5 grid, 1,000 samples, cross-validated: 3 methods, 6 seeds
    label       tours of 20 cities by cutting planes, 2,000 samples
    fit         SPO+ on tours of 20 cities, 256 samples, batches of 128

Each row is one call with `executor="processes"` and so many workers, from the start of its workers to their
end: imports and compilation are in it. Calls with few and many workers alternate; times are medians. The
results must be equal to the bit, and are compared. Run it on idle cores: the load that it found is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import decigrad as dg
from decigrad import problems
from decigrad.evaluation.statistics import format_number
from decigrad.execution import Pool
from decigrad.files import write_atomically


def path_data(seed: int) -> tuple[dg.Dataset, dg.Dataset]:
    features, costs, _ = problems.shortest_path_samples(2000, degree=4, noise=0.5, seed=seed)
    data = dg.Dataset(features, {"cost": costs})
    return data.take(np.arange(1000)), data.take(np.arange(1000, 2000))


def tour_data(count: int) -> dg.Dataset:
    features, costs, _ = problems.tsp_samples(count, seed=0)
    return dg.Dataset(features, {"cost": costs})


def compared(**pool: Any) -> Any:
    found = dg.compare(
        problems.shortest_path_layer(), path_data, methods=["two-stage", "spo+", "pfyl"], seeds=6,
        progress=False, **pool,
    )  # fmt: skip
    return [result.predictor for results in found.results.values() for result in results]


def labelled(**pool: Any) -> Any:
    data, layer = tour_data(2000), problems.tsp_layer(20)
    dg.label(data, layer, chunk=64, progress=False, **pool)
    return data.optimal(layer)[0].raw.x


def fitted(**pool: Any) -> Any:
    return dg.fit(
        dg.Linear(), problems.tsp_layer(20), tour_data(256), "spo+", selection=None, epochs=10,
        batch_size=128, progress=False, **pool,
    ).predictor  # fmt: skip


ROWS: dict[str, Callable[..., Any]] = {"compare": compared, "label": labelled, "fit": fitted}


def equal(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def start_up(workers: int) -> float:
    """Seconds until that many workers have answered."""
    began = time.perf_counter()
    with Pool("processes", workers) as pool:
        list(pool.map(_nothing, None, [("", None)] * workers, bounded=False))
        return time.perf_counter() - began


def _nothing(shared: Any, item: Any) -> None:
    import decigrad.training  # noqa: F401 - what a job imports


def measured(names: list[str], counts: list[int], repeat: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name in names:
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        first: Any = None
        same = True
        for _ in range(repeat):
            for count in counts:
                began = time.perf_counter()
                found = ROWS[name](executor="processes", workers=count)
                seconds[count].append(time.perf_counter() - began)
                first = found if first is None else first
                same = same and equal(first, found)
                print(f"{name}, workers {count}: {seconds[count][-1]:.1f} s", flush=True)
        rows[name] = {"seconds": {str(c): float(np.median(s)) for c, s in seconds.items()}, "equal": same}
    return rows


def table(found: dict[str, Any]) -> str:
    counts = found["workers"]
    head = ["", *(f"{c} worker{'s' * (c > 1)}, s" for c in counts), "times faster", "equal to the bit"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in found["rows"].items():
        values = [row["seconds"][str(c)] for c in counts]
        cells = [name, *map(format_number, values), f"{values[0] / values[-1]:.2f}"]
        lines.append("| " + " | ".join([*cells, "yes" if row["equal"] else "**no**"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": platform.machine(),
        "load before": os.getloadavg()[0],
        "workers": given.workers,
        "start-up, s": start_up(max(given.workers)),
        "rows": measured(given.rows, given.workers, given.repeat),
    }
    shown = table(found)
    print(f"\n{found['cores']} cores, load before {found['load before']:.1f}; workers answer after "
          f"{found['start-up, s']:.1f} s\n\n{shown}")  # fmt: skip
    if given.out is not None:
        text = (
            f"# Worker processes\n\n{__doc__.strip()}\n\n{found['cores']} cores; workers answer "
            f"{found['start-up, s']:.1f} s after they are asked for.\n\n{shown}\n"
        )
        write_atomically(given.out / "executors.json", json.dumps(found, indent=1) + "\n", what="the results")
        write_atomically(given.out / "executors.md", text, what="the results")


if __name__ == "__main__":
    main()
