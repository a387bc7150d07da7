"""All benchmarks in one table: how each method stands beside two-stage on each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decigrad.cli._bench_results import CellResults, Results, pipes
from decigrad.errors import ModelError
from decigrad.files import write_atomically
from decigrad.problems.benchmarks import BENCHMARKS
from decigrad.registry import METHODS

ABOUT = """# All benchmarks

    decigrad bench summary --out benchmarks/tables

Mean test regret as a share of that of two-stage (least squares): 0.80 is a fifth less. The three best of a
column are bold; a dash means not run, or not applicable. The last row decides by the true expected
parameters. Spreads and intervals are in the tables of the problems."""


def summarize(out: Path) -> str:
    """The table of what `out` holds, written to `summary.md` there.

    Raises:
        ModelError: `out` holds no results.
    """
    columns: dict[str, CellResults] = {}
    for benchmark in BENCHMARKS.values():
        for label, cell in Results.read(out, benchmark).cells.items():
            if "two-stage" in cell.runs and (benchmark.summary is None or label in benchmark.summary):
                columns[f"{benchmark.name}: {label}"] = cell
    if not columns:
        raise ModelError(f"{out} holds no results of `decigrad bench`")
    shares = {name: _shares(cell) for name, cell in columns.items()}
    methods = [m for m in [*METHODS, "auto"] if any(m in share for share in shares.values())]
    rows = [[m, *(_cell(share, m) for share in shares.values())] for m in methods]
    rows.append(["*floor*", *(_cell(share, "floor") for share in shares.values())])
    text = f"{ABOUT}\n\n{pipes(['method', *columns], rows)}\n"
    write_atomically(out / "summary.md", text, what="the summary")
    return text


def _shares(cell: CellResults) -> dict[str, float]:
    base = float(cell.values("two-stage").mean())
    found = {m: float(cell.values(m).mean()) / base for m in cell.runs}
    if cell.floor:
        found["floor"] = float(np.mean(list(cell.floor.values()))) / base
    return found


def _cell(share: dict[str, float], method: str) -> str:
    if method not in share:
        return "–"
    text = f"{share[method]:.2f}"
    best = sorted(value for m, value in share.items() if m != "floor")[:3]
    return f"**{text}**" if method != "floor" and share[method] <= best[-1] else text
