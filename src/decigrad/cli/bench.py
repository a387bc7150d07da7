"""`decigrad bench`: every method on a benchmark problem, run by run, resumable, beside published figures."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.cli._bench_results import Results
from decigrad.evaluation.metrics import plain
from decigrad.problems.benchmark import Benchmark, Cell, Draw
from decigrad.problems.benchmarks import benchmark
from decigrad.registry import METHODS

EXACT = "regret"


def run_bench(
    problem: str,
    methods: Sequence[str] = (),
    seeds: int = 5,
    cells: str = "*",
    data: Path | None = None,
    out: Path = Path("bench"),
    epochs: int | None = None,
    say: Callable[[str], None] = print,
) -> Results:
    """Run what is missing in `out`, write the table (Markdown, JSON, HTML) after every run, return it.

    Args:
        problem: name of a benchmark.
        methods: names; by default those of the benchmark.
        seeds: 0, 1, …: how often each method is trained.
        cells: only cells whose label matches this pattern (`*` and `?` as in file names).
        data: directory of the user's files, for benchmarks that read some.
        out: directory of the results; runs found there are not repeated.
        epochs: in place of the benchmark's.
        say: takes a line of progress.

    Raises:
        ModelError: unknown names; or `out` holds results of other settings.
    """
    chosen = benchmark(problem)
    if seeds < 1:
        raise dg.ModelError(f"bench needs at least one seed, got {seeds}")
    wanted = _methods(chosen, methods)
    kept = [cell for cell in chosen.cells(data) if fnmatch.fnmatch(cell.label, cells)]
    if not kept:
        labels = ", ".join(repr(cell.label) for cell in chosen.cells(data))
        raise dg.ModelError(f"no cell of {problem!r} matches {cells!r}; there are {labels}")
    results = Results.read(out, chosen)
    for cell in kept:
        own = wanted if methods else [m for m in wanted if not cell.omits(m)]
        if epochs is not None:
            cell = dataclasses.replace(cell, options={**cell.options, "epochs": epochs})
        for label in _run_cell(chosen, cell, own, range(seeds), results):
            say(label)
            results.write(out)
    results.write(out)
    say(f"Written to {results.write_page(out)}, and beside it as Markdown and JSON.")
    return results


def _methods(chosen: Benchmark, methods: Sequence[str]) -> list[str]:
    known = [*METHODS, "auto"]
    for name in methods:
        if name not in known:
            raise dg.ModelError(f"there is no method {name!r}; there are {', '.join(known)}")
    wanted = methods or chosen.methods or [name for name in known if name != EXACT]
    return list(dict.fromkeys(["two-stage", *wanted]))


def _run_cell(
    chosen: Benchmark, cell: Cell, methods: list[str], seeds: Iterable[int], results: Results
) -> Iterable[str]:
    """Fill the cell's results; yields a line after each run. What failed is not tried again."""
    found = results.cell(cell, _settings(chosen, cell))
    if not any(found.todo(methods, seed) for seed in seeds):
        return
    layer = cell.layer()
    for seed in seeds:
        todo = found.todo(methods, seed)
        if not todo:
            continue
        draw = cell.draw(seed)
        if draw.expected is not None and str(seed) not in found.floor:
            found.floor[str(seed)] = _floor(layer, draw, chosen.normalized)
        for method in todo:
            try:
                row = _run(chosen, cell, layer, draw, method, seed)
            except dg.ModelError as error:
                found.refused[method] = str(error)
                yield f"{cell.label}: {method} does not apply: {error}"
                continue
            except dg.SolveError as error:
                found.failed.setdefault(method, {})[str(seed)] = str(error)
                yield f"{cell.label}, seed {seed}, {method} failed: {error}"
                continue
            found.runs.setdefault(method, {})[str(seed)] = row
            yield f"{cell.label}, seed {seed}, {method}: {row['regret']:.2f} ({row['seconds']:.1f} s)"


def _settings(chosen: Benchmark, cell: Cell) -> dict[str, str]:
    short = {k: str(v) for k, v in cell.options_for("qptl").items()}
    return {
        "predictor": str(chosen.predictor),
        **{k: str(v) for k, v in cell.options.items()},
        "°": str(short),
    }


def _run(
    chosen: Benchmark, cell: Cell, layer: dg.DecisionLayer, draw: Draw, method: str, seed: int
) -> dict[str, Any]:
    compared = dg.compare(
        layer, draw.train, draw.test, methods=[method], baseline=method, seeds=[seed],
        predictor=chosen.predictor, progress=False, **cell.options_for(method),
    )  # fmt: skip
    data, fitted = compared.data, compared.results[method][0]
    key, factor = ("normalized_regret", 100.0) if chosen.normalized else ("mean_regret", 1.0)
    epochs = fitted.epoch_seconds[1:]
    return {
        "regret": factor * float(data.values(method, key)[0]),
        "mse": float(data.values(method, "mse")[0]),
        "seconds": fitted.seconds,
        "seconds_epoch": float(np.median(epochs)) if epochs else None,
        "calls": fitted.solver_calls,
        "chosen": plain(fitted.chosen),
    }


def _floor(layer: dg.DecisionLayer, draw: Draw, normalized: bool) -> float:
    """Regret of the decisions at the expected parameters, in the table's unit."""
    assert draw.expected is not None
    best = layer.solve(draw.test.parameters)
    decided = layer.solve({**draw.test.known, **draw.expected})
    reached = layer.sign * np.asarray(layer.objective(decided.x, draw.test.parameters))
    regret = reached - layer.sign * best.objective
    return float(100.0 * regret.sum() / np.abs(best.objective).sum() if normalized else regret.mean())
