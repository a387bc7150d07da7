"""`decigrad bench`: every method on a benchmark problem, run by run, resumable, beside published figures."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import decigrad as dg
from decigrad.cli._bench_results import CellResults, Results
from decigrad.evaluation.metrics import plain
from decigrad.execution import Pool
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
    workers: int = 1,
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
        workers: processes, each of which trains one method with one seed at a time; figures are the same.
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
    if epochs is not None:
        kept = [dataclasses.replace(cell, options={**cell.options, "epochs": epochs}) for cell in kept]
    results = Results.read(out, chosen)
    for cell in kept:
        if cell.label in results.cells:
            results.cell(
                cell, _settings(chosen, cell)
            )  # refuses those of other settings before anything runs

    def jobs() -> Iterator[tuple[str, Job]]:
        """What is missing; taken as workers need it, so what was refused meanwhile is left out."""
        for number, cell in enumerate(kept):
            own = wanted if methods else [m for m in wanted if not cell.omits(m)]
            for seed in range(seeds):
                for method in own:
                    found = results.cells.get(cell.label)
                    if found is None or found.todo([method], seed):
                        yield f"{cell.label}, seed {seed}, {method}", (number, seed, method)

    with Pool(None if workers == 1 else "processes", workers) as pool:
        rows = pool.map(_job, _Runs(chosen, kept), jobs(), bounded=False, kind=lambda job: (job[0], job[2]))
        for row in rows:
            cell = kept[row["cell"]]
            say(_noted(results.cell(cell, _settings(chosen, cell)), row))
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


Job = tuple[int, int, str]
"""Cell, by its place; seed; method."""


@dataclasses.dataclass(frozen=True)
class _Runs:
    """What all runs have in common; a worker keeps the layer and the data of the last one."""

    chosen: Benchmark
    cells: list[Cell]
    made: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    def layer(self, number: int) -> dg.DecisionLayer:
        """Of a cell."""
        return self._kept("layer", number, self.cells[number].layer)

    def draw(self, number: int, seed: int) -> Draw:
        """The data of a cell, by seed."""
        return self._kept("draw", (number, seed), lambda: self.cells[number].draw(seed))

    def floor(self, number: int, seed: int) -> float | None:
        """Regret of the decisions at the expected parameters, in the table's unit, where they are known."""

        def found() -> float | None:
            draw = self.draw(number, seed)
            known = draw.expected is not None
            return _floor(self.layer(number), draw, self.chosen.normalized) if known else None

        return self._kept("floor", (number, seed), found)

    def _kept(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        if name not in self.made or self.made[name][0] != key:
            self.made[name] = key, make()
        return self.made[name][1]


def _job(runs: _Runs, job: Job) -> dict[str, Any]:
    """One run: its figures ("run"), or why there are none ("refused", "failed"); the floor of its data."""
    number, seed, method = job
    found: dict[str, Any] = {"cell": number, "seed": seed, "method": method}
    layer, draw = runs.layer(number), runs.draw(number, seed)
    found["floor"] = runs.floor(number, seed)
    try:
        found["run"] = _run(runs.chosen, runs.cells[number], layer, draw, method, seed)
    except dg.ModelError as error:
        found["refused"] = str(error)
    except dg.SolveError as error:
        found["failed"] = str(error)
    return found


def _noted(cell: CellResults, row: dict[str, Any]) -> str:
    """Take a run into the results of its cell, and say what it was. What failed is not tried again."""
    method, seed = row["method"], str(row["seed"])
    if row["floor"] is not None:
        cell.floor.setdefault(seed, row["floor"])
    if "refused" in row:
        cell.refused.setdefault(method, row["refused"])
        return f"{cell.label}: {method} does not apply: {row['refused']}"
    if "failed" in row:
        cell.failed.setdefault(method, {})[seed] = row["failed"]
        return f"{cell.label}, seed {seed}, {method} failed: {row['failed']}"
    run = row["run"]
    cell.runs.setdefault(method, {})[seed] = run
    return f"{cell.label}, seed {seed}, {method}: {run['regret']:.2f} ({run['seconds']:.1f} s)"


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
