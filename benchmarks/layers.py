"""Differentiable layers beside their peers: decide a batch and pull Σ x² back to the costs.

    python -m benchmarks.layers                  the table: five rows, then other batches and sizes
    python -m benchmarks.layers --rows a b --batch 128 512 --size 100 --systems decigrad qpth
    python -m benchmarks.layers --quick          a smoke test of seconds

Matrices are shared by the batch, the costs differ and are differentiated; float64; one core. Every system
runs in a process of its own, and all take their repetitions in turn. A repetition repeats the call for at
least 30 ms.

- **ms** is the median of the repetitions, the whole batch, forward and backward; **±** the quartiles'
  distance.
- **CPU** is the processor time of the same: far below the wall-clock time, something else was running.
- **start** is what comes once: building the layer and the first call, compilation included, in seconds.
- **error** of x: the largest difference to the reference (`reference.py`); of the gradient: relative to one
  plus its largest entry. **off** counts samples whose gradient is wrong by more than 1e-6 of that,
  **failed** those without an answer.

A system is left out of a cell, and the table says so, where it is not installed, or where its times in
smaller cells predict more than the limit. discopt solves one by one in Python: it is given four programs of
a batch, and its time is scaled to all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, layers_report, worker
from benchmarks.peers import PACKAGES, SYSTEMS
from benchmarks.programs import ROWS, Cell, program
from benchmarks.reference import Reference, reference, reference_samples

BATCHES = (1, 32, 512, 4096)
"""Beside a row's own."""

SIZES = (10, 100, 300, 1000)
"""Of the rows b, d and e, at batch 32."""

_COMPILE = 120.0
"""Seconds allowed for the first call of what compiles."""

_FIXED = 0.02
"""Seconds of a call that may not grow with the cell."""


@dataclass
class Session:
    """A run: the processes of the systems, what is known of their speed, and the journal.

    Attributes:
        repeat: repetitions of each system.
        limit: seconds that one call may take.
        budget: seconds for the repetitions of one system in one cell.

    Beside the headline half of the repetitions are made, and a third of the budget is spent.
    """

    systems: list[str]
    journal: harness.Journal
    repeat: int
    limit: float
    budget: float
    processes: dict[str, harness.Process] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    seconds: dict[tuple[str, str], list[tuple[Cell, float]]] = field(default_factory=dict)

    def measure(self, cell: Cell, headline: bool) -> list[dict[str, Any]]:
        """Every system on a cell; from the journal where it is there."""
        todo = [s for s in self.systems if SYSTEMS[s].takes(cell, headline)]
        keys = {s: self._key(s, cell) for s in todo}
        running, entries = [], {}
        for system in todo:
            if keys[system] in self.journal:
                entries[system] = self.journal[keys[system]]
            elif reason := self._reason(system, cell):
                entries[system] = {"system": system, **describe(cell), "missing": reason}
            elif prepared := self._prepare(system, cell, entries):
                running.append((system, prepared))
        if running:
            self._time(cell, headline, running, entries)
            self._compare(cell, [s for s, _ in running if "wall" in entries[s]], entries)
        for system in todo:
            if keys[system] not in self.journal and self._final(entries[system]):
                self.journal[keys[system]] = entries[system]
            self._remember(system, cell, entries[system])
        return [entries[system] for system in todo]

    def _key(self, system: str, cell: Cell) -> str:
        """Where a measurement is kept; those of ours are of the library as it stands."""
        own = f"-{harness.library()}" if SYSTEMS[system].kind == "own" else ""
        return f"{cell.key}-{system.replace(', ', '_').replace(' ', '-')}{own}"

    def _final(self, entry: dict[str, Any]) -> bool:
        """Whether an entry is a measurement, not the absence of a package that may come."""
        return "missing" not in entry or "not available" not in entry["missing"]

    def _reason(self, system: str, cell: Cell) -> str | None:
        """Why a system is left out of a cell before it is asked, or None."""
        if system in self.missing:
            return self.missing[system]
        expected = self._expected(system, cell)
        if expected > self.limit:
            return f"skipped: too slow (about {expected:.0f} s expected)"
        return None

    def _expected(self, system: str, cell: Cell) -> float:
        """Seconds by the times in smaller cells: linear in the batch, n^2.5 in the variables."""
        expected = []
        for other, seconds in self.seconds.get((system, cell.row), []):
            if other.batch <= cell.batch and other.n <= cell.n:
                growth = cell.batch / other.batch * (cell.n / other.n) ** 2.5
                expected.append(seconds + max(0.0, seconds - _FIXED) * (growth - 1.0))
        return min(expected, default=0.0)

    def _remember(self, system: str, cell: Cell, entry: dict[str, Any]) -> None:
        if "wall" in entry:
            self.seconds.setdefault((system, cell.row), []).append((cell, entry["wall"]["median"]))
        elif entry.get("missing", "").startswith("over"):
            self.seconds.setdefault((system, cell.row), []).append((cell, 2.0 * self.limit))

    def _prepare(self, system: str, cell: Cell, entries: dict[str, Any]) -> dict[str, float] | None:
        process = self.processes.setdefault(system, harness.Process())
        limit = self.limit + (_COMPILE if SYSTEMS[system].compiles else 0.0)
        entries[system] = {"system": system, **describe(cell)}
        try:
            found = process.ask(worker.prepare, system, cell, limit=limit + 20.0)
        except harness.Failure as failure:
            reason = str(failure)
            if reason.startswith(("ModuleNotFoundError", "ImportError")) or "unknown solver" in reason:
                reason = f"not available: {reason.partition(': ')[2].partition(': choose')[0]}"
                self.missing[system] = reason
            entries[system]["missing"] = reason.split("\n")[0][:200]
            return None
        entries[system]["started"] = found["started"] - found["steady"]
        return found

    def _time(
        self,
        cell: Cell,
        headline: bool,
        running: list[tuple[str, dict[str, float]]],
        entries: dict[str, Any],
    ) -> None:
        """Repetitions in turn, a system dropping out when its budget is spent."""
        repeat, budget = (self.repeat, self.budget) if headline else (self.repeat // 2 + 1, self.budget / 3)
        times: dict[str, list[tuple[float, float]]] = {system: [] for system, _ in running}
        spent = dict.fromkeys(times, 0.0)
        for _ in range(repeat):
            for system, prepared in running:
                over = bool(times[system]) and spent[system] + prepared["steady"] > budget
                if over or "missing" in entries[system]:
                    continue
                began = time.perf_counter()
                try:
                    times[system].append(
                        self.processes[system].ask(worker.repetition, limit=3 * self.limit + 10.0)
                    )
                except harness.Failure as failure:
                    entries[system]["missing"] = str(failure)
                spent[system] += time.perf_counter() - began
        for system, _ in running:
            if times[system] and "missing" not in entries[system]:
                wall, cpu = zip(*times[system], strict=True)
                scale = SYSTEMS[system].scale(cell)
                entries[system]["wall"] = harness.spread(w * scale for w in wall)
                entries[system]["cpu"] = harness.spread(c * scale for c in cpu)
                entries[system]["repetitions"] = len(wall)

    def _compare(self, cell: Cell, systems: list[str], entries: dict[str, Any]) -> None:
        """Errors against the reference."""
        known = self._reference(cell)
        for system in systems:
            try:
                x, gradient = self.processes[system].ask(
                    worker.answer, known.size, limit=3 * self.limit + 10.0
                )
            except harness.Failure as failure:
                entries[system]["missing"] = str(failure)
                continue
            entries[system] |= errors(x, gradient, known)

    def _reference(self, cell: Cell) -> Reference:
        path = self.journal.folder / f"reference-{cell.row}-n{cell.n}-{reference_samples(cell)}.npz"
        if not path.exists():
            found = reference(program(cell), reference_samples(cell))
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, x=found.x, gradient=found.gradient, sure=found.sure)
        with np.load(path) as stored:
            return Reference(stored["x"], stored["gradient"], stored["sure"])

    def end(self) -> None:
        for process in self.processes.values():
            process.end()


def describe(cell: Cell) -> dict[str, Any]:
    return {"row": cell.row, "batch": cell.batch, "n": cell.n}


def errors(x: np.ndarray, gradient: np.ndarray, known: Reference) -> dict[str, Any]:
    """Errors over the samples that have an answer, and how many have none or a wrong gradient."""
    right, exact, sure = known.x[: len(x)], known.gradient[: len(x)], known.sure[: len(x)]
    answered = np.isfinite(x).all(axis=1) & np.isfinite(gradient).all(axis=1)
    counted = answered & sure
    distance = np.abs(gradient - exact).max(axis=1) / (1.0 + np.abs(exact).max())
    return {
        "compared": int(counted.sum()),
        "unsure": int((~sure).sum()),
        "error_x": float(np.abs(x - right)[counted].max(initial=0.0)),
        "error_gradient": float(distance[counted].max(initial=0.0)),
        "off": int((distance[counted] > 1e-6).sum()),
        "failed": int((~answered).sum()),
    }


def cells(options: argparse.Namespace) -> Iterator[tuple[Cell, bool]]:
    """The cells of a run, the headline first; whether each is of it."""
    if options.batch or options.size:
        for row in options.rows:
            for size in options.size or [None]:
                for batch in options.batch or [ROWS[row].batch]:
                    yield Cell(row, batch, size), size in (None, ROWS[row].size)
        return
    for row in options.rows:
        yield Cell(row, ROWS[row].batch), True
    if options.headline:
        return
    for row in options.rows:
        for batch in BATCHES:
            if batch != ROWS[row].batch:
                yield Cell(row, batch), False
    for row in options.rows:
        for size in SIZES if row in "bde" else ():
            yield Cell(row, 32, size), False


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `layers.md`, `layers.json` and `layers.svg`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--batch", nargs="*", type=int, help="these batches only")
    parser.add_argument("--size", nargs="*", type=int, help="these numbers of variables only")
    parser.add_argument(
        "--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="SYSTEM"
    )
    parser.add_argument("--headline", action="store_true", help="the five rows alone")
    parser.add_argument("--repeat", type=int, default=9, help="repetitions of each system")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that one call may take")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for one system in one cell")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which no new cell is begun")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has measured")
    parser.add_argument("--quick", action="store_true", help="a smoke test: row a, batch 4, two systems")
    parser.add_argument("--journal", type=Path, default=harness.JOURNAL / "layers")
    parser.add_argument("--out", type=Path, default=harness.TABLES)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.batch, options.repeat = ["a"], [4], 2
        options.systems = [s for s in options.systems if s in ("decigrad, daqp", "qpth")]
    settings = {
        "repeat": options.repeat,
        "limit": options.limit,
        "budget": options.budget,
        "machine": harness.machine(),
        "versions": harness.versions(PACKAGES),
    }
    journal = harness.Journal(options.journal, settings, options.fresh)
    session = Session(options.systems, journal, options.repeat, options.limit, options.budget)
    found: list[dict[str, Any]] = []
    began = time.perf_counter()
    try:
        for cell, headline in cells(options):
            if time.perf_counter() - began > 60.0 * options.minutes:
                print("out of time; the same command goes on from here", file=sys.stderr)
                break
            entries = session.measure(cell, headline)
            found += [{**entry, "headline": headline} for entry in entries]
            print(layers_report.cell_table(entries), "\n", flush=True)
            layers_report.write(options.out, __doc__ or "", found, settings["versions"])
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    finally:
        session.end()


if __name__ == "__main__":
    main()
