"""What more worker processes bring: whole trainings, labels, and the solves of one training.

    python -m benchmarks.executors [--workers 1 2] [--repeat 2] [--out benchmarks/tables]

    compare     shortest paths on a 5 × 5 grid, 3,000 samples, cross-validated: 3 methods, 12 seeds
    label       tours of 20 cities by cutting planes, 8,000 samples
    fit         SPO+ on tours of 20 cities, 512 samples, batches of 128, 10 epochs

Each row is one call with `executor="processes"` and so many workers, each with a core, from the start
of its workers to their end: imports and compilation are in it. One worker is also given all cores: it then
uses more than one of them, since JAX compiles and runs in several threads. The calls alternate; times are
medians. Beside them is the CPU time of all processes, which says what the machine would do if its cores
were idle. The results must be equal to the bit, and are compared. Run it on idle cores: the load that it
found is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
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
    features, costs, _ = problems.shortest_path_samples(4000, degree=4, noise=0.5, seed=seed)
    data = dg.Dataset(features, {"cost": costs})
    return data.take(np.arange(3000)), data.take(np.arange(3000, 4000))


def tour_data(count: int) -> dg.Dataset:
    features, costs, _ = problems.tsp_samples(count, seed=0)
    return dg.Dataset(features, {"cost": costs})


def compared(**pool: Any) -> Any:
    found = dg.compare(
        problems.shortest_path_layer(), path_data, methods=["two-stage", "spo+", "pfyl"], seeds=12,
        progress=False, **pool,
    )  # fmt: skip
    return [result.predictor for results in found.results.values() for result in results]


def labelled(**pool: Any) -> Any:
    data, layer = tour_data(8000), problems.tsp_layer(20)
    dg.label(data, layer, chunk=64, progress=False, **pool)
    return data.optimal(layer)[0].raw.x


def fitted(**pool: Any) -> Any:
    return dg.fit(
        dg.Linear(), problems.tsp_layer(20), tour_data(512), "spo+", selection=None, epochs=10,
        batch_size=128, progress=False, **pool,
    ).predictor  # fmt: skip


PINNED = hasattr(os, "sched_setaffinity")
CORES = sorted(os.sched_getaffinity(0)) if PINNED else list(range(os.cpu_count() or 1))
ROWS: dict[str, Callable[..., Any]] = {"compare": compared, "label": labelled, "fit": fitted}


def equal(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def confine(cores: int) -> None:
    """This process, and those that it starts from now on, to so many cores, where the system can."""
    if PINNED:
        os.sched_setaffinity(0, CORES[:cores])


def start_up(workers: int) -> float:
    """Seconds until that many workers have answered."""
    began = time.perf_counter()
    with Pool("processes", workers) as pool:
        list(pool.map(_nothing, None, [("", None)] * workers, bounded=False))
        return time.perf_counter() - began


def _nothing(shared: Any, item: Any) -> None:
    import decigrad.training  # noqa: F401 - what a job imports


def cpu() -> float:
    """Seconds of the CPU that this process and its ended children took."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def setups(counts: list[int]) -> dict[str, tuple[int, int]]:
    """By name, workers and cores: a core for each worker, and all cores for one."""
    found = {f"{c} worker{'s' * (c > 1)}, {c} core{'s' * (c > 1)}": (c, c) for c in counts}
    most = len(CORES)
    return {f"1 worker, {most} cores": (1, most), **found} if most > 1 and 1 in counts else found


def measured(names: list[str], counts: list[int], repeat: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name in names:
        seconds: dict[str, list[float]] = {setup: [] for setup in setups(counts)}
        processor: dict[str, list[float]] = {setup: [] for setup in setups(counts)}
        first: Any = None
        same = True
        for _ in range(repeat):
            for setup, (count, cores) in setups(counts).items():
                confine(cores)
                began, spent = time.perf_counter(), cpu()
                found = ROWS[name](executor="processes", workers=count)
                seconds[setup].append(time.perf_counter() - began)
                processor[setup].append(cpu() - spent)
                first = found if first is None else first
                same = same and equal(first, found)
                told = f"{seconds[setup][-1]:.1f} s, of the CPU {processor[setup][-1]:.1f} s"
                print(f"{name}, {setup}: {told}", flush=True)
        confine(len(CORES))
        times, spent = (
            {setup: float(np.median(values)) for setup, values in each.items()}
            for each in (seconds, processor)
        )
        rows[name] = {"seconds": times, "cpu": spent, "equal": same}
    return rows


def table(found: dict[str, Any]) -> str:
    names = list(setups(found["workers"]))
    head = ["", *(f"{n}: s" for n in names), "a core each: times faster", *(f"{n}: CPU s" for n in names)]
    lines = ["| " + " | ".join([*head, "equal bits"]) + " |", "|" + "---|" * (len(head) + 1)]
    for name, row in found["rows"].items():
        values, spent = list(row["seconds"].values()), list(row["cpu"].values())
        ratio = f"{values[-len(found['workers'])] / values[-1]:.2f}"
        cells = [name, *map(format_number, values), ratio, *map(format_number, spent)]
        lines.append("| " + " | ".join([*cells, "yes" if row["equal"] else "**no**"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {
        "cores": len(CORES),
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
